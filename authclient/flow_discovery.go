package authclient

import (
	"context"
	"errors"
	"time"
)

// discoveryLife is how long stored discovery counts for a new authorization.
const discoveryLife = time.Hour

// discover finds the authorization server and binds the flow to it.
func (f *flow) discover(ctx context.Context) error {
	recorded, err := f.recordedDiscovery(ctx)
	if err != nil {
		return err
	}
	if recorded != nil && f.o.ResourceMetadataURL == "" {
		f.o.ResourceMetadataURL = recorded.ResourceMetadataURL
	}
	changed, err := f.find(ctx, recorded)
	if err != nil {
		return err
	}
	f.server = AuthorizationServer{URL: f.found.AuthorizationServerURL, Metadata: f.found.AuthorizationServer, Options: f.o}
	if err := f.bind(recorded); err != nil {
		return err
	}
	if changed {
		if err := f.saveDiscovery(ctx); err != nil {
			return err
		}
	}
	f.result.Issuer = f.server.Issuer()
	f.result.AuthorizationServer, f.result.ProtectedResource = f.found.AuthorizationServer, f.found.ProtectedResource
	if s, ok := f.p.(AuthorizationServerURLSaver); ok {
		return s.SaveAuthorizationServerURL(ctx, f.server.Issuer())
	}
	return nil
}

func (f *flow) recordedDiscovery(ctx context.Context) (*DiscoveryState, error) {
	store, ok := f.p.(DiscoveryStore)
	if !ok {
		return nil, nil
	}
	recorded, err := store.DiscoveryState(ctx)
	if err != nil || recorded == nil || recorded.AuthorizationServerURL == "" {
		return nil, err
	}
	return recorded, nil
}

func (f *flow) saveDiscovery(ctx context.Context) error {
	if store, ok := f.p.(DiscoveryStore); ok {
		kept := *f.found
		return store.SaveDiscoveryState(ctx, &kept)
	}
	return nil
}

// find sets f.found. changed is true if it differs from what is recorded.
func (f *flow) find(ctx context.Context, recorded *DiscoveryState) (changed bool, err error) {
	switch {
	case recorded == nil, !f.isCallback() && f.stale(recorded):
		f.found, err = f.net.serverInfo(ctx, &f.o)
		return true, err
	case f.o.RefusedToken != "" && !f.isCallback():
		// The server has refused a token: it may have another authorization
		// server by now.
		return f.confirm(ctx, recorded)
	}
	return f.complete(ctx, recorded)
}

// stale reports whether the record is too old, or made for other options.
func (f *flow) stale(recorded *DiscoveryState) bool {
	if f.o.ExpectedIssuer != "" && !sameIssuer(f.o.ExpectedIssuer, recorded.AuthorizationServerURL) {
		return true
	}
	age := f.o.now().Sub(recorded.FoundAt)
	return !recorded.FoundAt.IsZero() && (age > discoveryLife || age < -discoveryLife)
}

// confirm asks the MCP server again which authorization server it has, and
// keeps the record if that is the same, or if it cannot say just now.
func (f *flow) confirm(ctx context.Context, recorded *DiscoveryState) (changed bool, err error) {
	resource, err := f.net.protectedResource(ctx, &f.o)
	if errors.Is(err, ErrUnavailable) {
		f.log.Warn("the protected resource metadata cannot be read now; using those found before", "server", f.o.ServerURL, "error", err.Error())
		return f.complete(ctx, recorded)
	}
	if err != nil && !errors.Is(err, ErrNoMetadata) {
		return false, err
	}
	if f.net.chooseServer(resource, &f.o) != recorded.AuthorizationServerURL {
		f.found, err = f.net.serverInfoFor(ctx, resource, &f.o)
		return true, err
	}
	renewed := *recorded
	renewed.ProtectedResource = resource
	return f.complete(ctx, &renewed)
}

// complete fetches the metadata that the record lacks.
func (f *flow) complete(ctx context.Context, recorded *DiscoveryState) (changed bool, err error) {
	found := *recorded
	f.found = &found
	if found.AuthorizationServer == nil {
		m, err := f.net.authorizationServer(ctx, found.AuthorizationServerURL, &f.o)
		if err != nil && !errors.Is(err, ErrNoMetadata) {
			return false, err
		}
		found.AuthorizationServer, changed = m, m != nil
	}
	if found.ProtectedResource == nil {
		m, err := f.net.protectedResource(ctx, &f.o)
		if err != nil && !errors.Is(err, ErrNoMetadata) && !errors.Is(err, ErrUnavailable) {
			return false, err
		}
		found.ProtectedResource, changed = m, changed || m != nil
	}
	return changed, nil
}

// bind refuses an authorization server other than the expected one, and on a
// callback one other than that to which the user was sent.
func (f *flow) bind(recorded *DiscoveryState) error {
	issuer := f.server.Issuer()
	if f.o.ExpectedIssuer != "" && !sameIssuer(f.o.ExpectedIssuer, issuer) {
		return &AuthorizationServerMismatchError{What: "the credential", Recorded: f.o.ExpectedIssuer, Current: issuer}
	}
	if !f.isCallback() {
		return nil
	}
	_, keeps := f.p.(DiscoveryStore)
	switch {
	case recorded != nil && !sameIssuer(recorded.Issuer(), issuer):
		return &AuthorizationServerMismatchError{What: "the authorization code", Recorded: recorded.Issuer(), Current: issuer}
	case recorded == nil && keeps:
		return &AuthorizationServerMismatchError{What: "the authorization code", Current: issuer}
	case recorded == nil:
		f.log.Warn("the provider is no DiscoveryStore: it cannot be checked that the callback is from the authorization server to which the user was sent", "server", f.o.ServerURL)
	}
	return nil
}

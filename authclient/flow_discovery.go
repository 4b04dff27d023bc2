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
	case recorded == nil, !f.isCallback() && f.forOthers(recorded):
		f.found, err = f.net.serverInfo(ctx, &f.o)
		return true, err
	case !f.isCallback() && (f.stale(recorded) || f.o.RefusedToken != ""):
		// The server may have another authorization server by now.
		return f.confirm(ctx, recorded)
	}
	return f.complete(ctx, recorded)
}

// forOthers reports whether the record was made for other options.
func (f *flow) forOthers(recorded *DiscoveryState) bool {
	return f.o.ExpectedIssuer != "" && !sameIssuer(f.o.ExpectedIssuer, recorded.AuthorizationServerURL)
}

// stale reports whether the record is too old.
func (f *flow) stale(recorded *DiscoveryState) bool {
	age := f.o.now().Sub(recorded.FoundAt)
	return !recorded.FoundAt.IsZero() && (age > discoveryLife || age < -discoveryLife)
}

// confirm asks the MCP server again which authorization server it has. The
// record stays if that is the same, or if the server cannot say just now: to be
// silent about it is no way to send users and their credentials elsewhere.
func (f *flow) confirm(ctx context.Context, recorded *DiscoveryState) (changed bool, err error) {
	resource, place, err := f.net.resourceMetadata(ctx, &f.o)
	if err != nil {
		keep, keepErr := f.keeps(ctx, recorded, err)
		switch {
		case keepErr != nil:
			return false, keepErr
		case keep:
			f.log.Warn("the protected resource metadata cannot be read now; using those found before", "server", bareURL(f.o.ServerURL), "error", err.Error())
			return f.complete(ctx, recorded)
		case !errors.Is(err, ErrNoMetadata):
			return f.behindPages(ctx, recorded, err)
		}
	}
	chosen := f.net.chooseServer(resource, &f.o)
	if f.stale(recorded) || chosen != recorded.AuthorizationServerURL {
		f.found, err = f.net.serverInfoFor(ctx, resource, place, &f.o)
		if err == nil && chosen == recorded.AuthorizationServerURL {
			f.found.Scope, f.found.Client = recorded.Scope, recorded.Client // of a login under way
		}
		return true, err
	}
	renewed := *recorded
	renewed.ProtectedResource, renewed.ResourceMetadataURL = resource, place
	changed, err = f.complete(ctx, &renewed)
	return changed || place != recorded.ResourceMetadataURL, err
}

// keeps reports whether the flow goes on with the record although the metadata
// could not be read. A fresh one outlasts trouble. One with tokens of its
// authorization server does so at any age, and is not given up for the origin of
// the MCP server either, where an authorization server is looked for when there
// are no metadata.
func (f *flow) keeps(ctx context.Context, recorded *DiscoveryState, trouble error) (bool, error) {
	switch {
	case errors.Is(trouble, ErrUnavailable):
		if !f.stale(recorded) {
			return true, nil
		}
	case !errors.Is(trouble, ErrNoMetadata) || recorded.AuthorizationServerURL == f.net.chooseServer(nil, &f.o):
		return false, nil
	}
	tokens, err := f.tokens(ctx, recorded.Issuer())
	return tokens != nil && sameIssuer(tokens.Issuer, recorded.Issuer()), err
}

// behindPages is for a server of old at whose origin a web application answers.
func (f *flow) behindPages(ctx context.Context, recorded *DiscoveryState, trouble error) (changed bool, err error) {
	if recorded.AuthorizationServerURL != f.net.chooseServer(nil, &f.o) {
		return false, trouble
	}
	if f.found = f.net.behindPages(ctx, trouble, &f.o); f.found == nil {
		return false, trouble
	}
	return true, nil
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
		m, _, err := f.net.resourceMetadata(ctx, &f.o)
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
		f.log.Warn("the provider is no DiscoveryStore: it cannot be checked that the callback is from the authorization server to which the user was sent", "server", bareURL(f.o.ServerURL))
	}
	return nil
}

package authclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// selectClient decides who the client is at the authorization server: on a
// callback the one that began the login, else the stored one, to which tokens are
// bound, else a client metadata document. None is registered here: only a user
// who is sent away needs that.
func (f *flow) selectClient(ctx context.Context) error {
	if f.result.Client = f.pending(); f.isCallback() && f.result.Client != nil {
		return nil
	}
	stored, err := f.p.ClientInformation(ctx, f.server.Issuer())
	if err != nil {
		return err
	}
	client, err := f.bound(ctx, stored)
	if err != nil {
		return err
	}
	if client == nil && (f.isCallback() || f.p.RedirectURL() == "" || f.takesDocument()) {
		if client, err = f.newClient(ctx); err != nil {
			return err
		}
		if client != nil {
			err = f.saveClient(ctx, client)
		}
	}
	f.result.Client = client
	return err
}

// pending is the client of the login under way if it is not the stored one.
func (f *flow) pending() *ClientInformation {
	c := f.found.Client
	if c == nil || f.skipClient || !sameIssuer(c.Issuer, f.server.Issuer()) {
		return nil
	}
	return c
}

// renewClient sees to it that the client is good for a new authorization. While
// tokens are bound to the stored one, a new one stays beside it until it has
// tokens of its own.
func (f *flow) renewClient(ctx context.Context) error {
	stored := f.result.Client
	if stored != nil && (!f.registers() || !f.outdated(stored)) {
		f.newPending, f.found.Client = f.found.Client != nil, nil
		return nil
	}
	if c := f.pending(); c != nil && !f.outdated(c) {
		f.result.Client = c
		return nil
	}
	client, err := f.newClient(ctx)
	if err != nil {
		return err
	}
	f.result.Client = client
	if stored != nil {
		tokens, err := f.tokens(ctx, f.server.Issuer())
		if err != nil {
			return err
		}
		if _, keeps := f.p.(DiscoveryStore); keeps && tokens != nil && tokens.RefreshToken != "" {
			f.newPending, f.found.Client = true, client
			return nil
		}
	}
	f.newPending, f.found.Client = f.found.Client != nil, nil
	return f.saveClient(ctx, client)
}

// keepClient stores the client that began the login, now that it has tokens.
func (f *flow) keepClient(ctx context.Context) error {
	client := f.pending()
	if client == nil {
		return nil
	}
	if err := f.saveClient(ctx, client); err != nil {
		return err
	}
	f.found.Client = nil
	return f.saveDiscovery(ctx)
}

// bound returns the stored client if it may be presented to this authorization
// server, nil if a new one is needed.
func (f *flow) bound(ctx context.Context, stored *ClientInformation) (*ClientInformation, error) {
	if stored == nil || f.skipClient {
		return nil, nil
	}
	issuer := f.server.Issuer()
	if stored.Issuer != "" && !sameIssuer(stored.Issuer, issuer) {
		if f.registers() {
			return nil, nil
		}
		return nil, &AuthorizationServerMismatchError{What: "the client " + stored.ClientID, Recorded: stored.Issuer, Current: issuer}
	}
	if stored.Issuer != "" {
		return stored, nil
	}
	client := *stored
	client.Issuer = issuer
	return &client, f.saveClient(ctx, &client)
}

// registers reports whether the client can register anew: it has a user, and
// the provider keeps what comes of it.
func (f *flow) registers() bool {
	if fixed, ok := f.p.(interface{ hasFixedClient() bool }); ok && fixed.hasFixedClient() {
		return false
	}
	_, ok := f.p.(Registrar)
	return ok && f.p.RedirectURL() != ""
}

// saveClient keeps the client if the provider can.
func (f *flow) saveClient(ctx context.Context, client *ClientInformation) error {
	registrar, ok := f.p.(Registrar)
	if !ok {
		return nil
	}
	if err := registrar.SaveClientInformation(ctx, client); err != nil {
		return fmt.Errorf("the client could not be saved: %w", err)
	}
	return nil
}

// outdated reports whether a registration of ours has lost its use: its secret
// has expired, it has not the redirect URI of today, or it is for less scope.
func (f *flow) outdated(c *ClientInformation) bool {
	if c.SecretExpired(f.o.now()) {
		return true
	}
	if c.Scope != "" && IsStrictScopeSuperset(f.result.Scope, c.Scope) {
		return true
	}
	redirect := f.p.RedirectURL()
	return redirect != "" && len(c.RedirectURIs) > 0 && !oauth.MatchRedirectURI(c.RedirectURIs, redirect)
}

// newClient makes a client: the URL of the client metadata document where the
// authorization server takes that, else a registration.
func (f *flow) newClient(ctx context.Context) (*ClientInformation, error) {
	if f.isCallback() {
		return nil, errors.New("the client that began this login is not stored any more, so its code cannot be redeemed: begin the login again")
	}
	document, err := f.metadataDocument()
	if err != nil {
		return nil, err
	}
	if f.takesDocument() {
		client := &ClientInformation{Issuer: f.server.Issuer()}
		client.ClientID = document
		return client, nil
	}
	if f.p.RedirectURL() == "" {
		// A grant such as workload identity needs no client.
		if _, ok := f.p.(TokenRequestPreparer); ok {
			return nil, nil
		}
	}
	if !f.registers() {
		return nil, fmt.Errorf("there is no client for %s, and the provider cannot keep one: give it a client_id, or make it a Registrar", f.server.Issuer())
	}
	// Before the registration, which would be for nothing.
	if err := f.server.checkCodeFlow(); err != nil {
		return nil, err
	}
	client, err := f.register(ctx)
	if err != nil {
		return nil, err
	}
	if len(client.RedirectURIs) > 0 && !slices.Contains(client.RedirectURIs, f.p.RedirectURL()) && !oauth.MatchRedirectURI(client.RedirectURIs, f.p.RedirectURL()) {
		return nil, fmt.Errorf("%w: %s has registered the client without its redirect URI %s: ask its operator which ones it allows", ErrRegistrationRejected, f.server.Issuer(), f.p.RedirectURL())
	}
	return client, nil
}

// register registers the client for all the scope that is known, for servers
// that never give more than was registered. Of what was asked for and what the
// server says, the client keeps both: asking again would not change it.
func (f *flow) register(ctx context.Context) (*ClientInformation, error) {
	metadata, scope := ResolveClientMetadata(f.p), f.registrationScope()
	client, err := RegisterClient(ctx, f.server, metadata, scope)
	if errors.Is(err, ErrRegistrationRejected) && scope != f.result.Scope {
		scope = f.result.Scope
		client, err = RegisterClient(ctx, f.server, metadata, scope)
	}
	if err == nil && client.Scope != "" {
		client.Scope = ComputeScopeUnion(scope, client.Scope)
	}
	return client, err
}

// registrationScope is what is asked for now and what may be later: the scope of
// the metadata, as far as the authorization server knows it, that of the client,
// and that of its last registration.
func (f *flow) registrationScope() string {
	all := []string{f.result.Scope, f.p.ClientMetadata().Scope}
	if f.result.Client != nil {
		all = append(all, f.result.Client.Scope)
	}
	if f.found.ProtectedResource != nil {
		all = append(all, f.found.ProtectedResource.ScopesSupported...)
	}
	if m := f.server.Metadata; m != nil && len(m.ScopesSupported) > 0 {
		known := strings.Join(m.ScopesSupported, " ")
		for i, scope := range all {
			if i > 0 { // what is asked for stays
				all[i] = missing(scope, missing(scope, known))
			}
		}
	}
	if scope := ComputeScopeUnion(all...); len(scope) <= maxChallengeScope {
		return scope
	}
	return f.result.Scope
}

// takesDocument reports whether there is a client metadata document and the
// authorization server takes it.
func (f *flow) takesDocument() bool {
	document, err := f.metadataDocument()
	return err == nil && document != "" && f.server.Metadata != nil && f.server.Metadata.ClientIDMetadataDocumentSupported
}

func (f *flow) metadataDocument() (string, error) {
	document := f.o.ClientMetadataURL
	if d, ok := f.p.(ClientMetadataDocument); ok && document == "" {
		document = d.ClientMetadataURL()
	}
	return document, ValidateClientMetadataURL(document)
}

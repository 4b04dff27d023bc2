package authclient

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// selectClient decides who the client is at the authorization server: the
// stored one, else a client metadata document, else by registration.
func (f *flow) selectClient(ctx context.Context) error {
	stored, err := f.p.ClientInformation(ctx, f.server.Issuer())
	if err != nil {
		return err
	}
	client, err := f.bound(ctx, stored)
	if err != nil {
		return err
	}
	if client == nil {
		if client, err = f.newClient(ctx); err != nil {
			return err
		}
	}
	f.result.Client = client
	return nil
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
	if !f.isCallback() && f.registers() && f.outdated(stored) {
		return nil, nil
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
// has expired, or it has not the redirect URI of today.
func (f *flow) outdated(c *ClientInformation) bool {
	if c.SecretExpired(f.o.now()) {
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
	client := &ClientInformation{Issuer: f.server.Issuer()}
	if m := f.server.Metadata; document != "" && m != nil && m.ClientIDMetadataDocumentSupported {
		client.ClientID = document
		return client, f.saveClient(ctx, client)
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
	if client, err = RegisterClient(ctx, f.server, ResolveClientMetadata(f.p), f.result.Scope); err != nil {
		return nil, err
	}
	if len(client.RedirectURIs) > 0 && !slices.Contains(client.RedirectURIs, f.p.RedirectURL()) && !oauth.MatchRedirectURI(client.RedirectURIs, f.p.RedirectURL()) {
		return nil, fmt.Errorf("%w: %s has registered the client without its redirect URI %s: ask its operator which ones it allows", ErrRegistrationRejected, f.server.Issuer(), f.p.RedirectURL())
	}
	return client, f.saveClient(ctx, client)
}

func (f *flow) metadataDocument() (string, error) {
	document := f.o.ClientMetadataURL
	if d, ok := f.p.(ClientMetadataDocument); ok && document == "" {
		document = d.ClientMetadataURL()
	}
	return document, ValidateClientMetadataURL(document)
}

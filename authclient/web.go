package authclient

import (
	"context"
	"errors"
	"net/url"
	"slices"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// WebOptions are the options of NewWeb.
type WebOptions struct {
	// RedirectURL is the callback of the program. It belongs to the metadata too.
	RedirectURL string
	// Metadata are sent at registration. A redirect_uris without RedirectURL gets
	// it.
	Metadata oauth.ClientMetadata
	// ClientMetadataURL is the client metadata document; "" for none.
	ClientMetadataURL string
	// Client is a client that was registered beforehand; nil to register. Without
	// an Issuer it belongs to the first authorization server that it is used at.
	Client *ClientInformation
	// Redirect sends the user's browser to the URL. It may be nil: the URL is in
	// the Result of Auth too.
	Redirect func(ctx context.Context, u *url.URL) error
}

// Web is the Provider of a program with a callback of its own, such as a web
// application: Auth begins a login, and the handler of the callback calls Auth
// with the query parameters.
type Web struct {
	identity
	redirect func(ctx context.Context, u *url.URL) error
}

var (
	_ Provider               = (*Web)(nil)
	_ ClientMetadataDocument = (*Web)(nil)
)

// NewWeb returns a Provider that keeps what it holds in the store.
func NewWeb(store Store, o WebOptions) (*Web, error) {
	id, err := newIdentity(store, o.RedirectURL, o.Metadata, o.ClientMetadataURL, o.Client)
	if err != nil {
		return nil, err
	}
	if o.Redirect == nil {
		o.Redirect = func(context.Context, *url.URL) error { return nil }
	}
	return &Web{identity: id, redirect: o.Redirect}, nil
}

// RedirectToAuthorization implements Provider.
func (w *Web) RedirectToAuthorization(ctx context.Context, u *url.URL) error {
	return w.redirect(ctx, u)
}

// identity is what the ready providers have in common: a store, and who the
// client is.
type identity struct {
	Store
	redirectURL string
	metadata    oauth.ClientMetadata
	document    string
	fixed       *ClientInformation
}

func newIdentity(store Store, redirectURL string, metadata oauth.ClientMetadata, document string, fixed *ClientInformation) (identity, error) {
	if store == nil {
		return identity{}, errors.New("a store is needed, such as NewMemoryStore()")
	}
	if _, err := url.Parse(redirectURL); err != nil || redirectURL == "" {
		return identity{}, errors.New("the redirect URL is empty or malformed: write that of the callback, such as https://client.example.com/callback")
	}
	if err := ValidateClientMetadataURL(document); err != nil {
		return identity{}, err
	}
	if fixed != nil && fixed.ClientID == "" {
		return identity{}, errors.New("the client has no client_id: leave the client out to have it registered")
	}
	if !slices.Contains(metadata.RedirectURIs, redirectURL) {
		metadata.RedirectURIs = append(slices.Clone(metadata.RedirectURIs), redirectURL)
	}
	if metadata.TokenEndpointAuthMethod == "" {
		// RFC 7591 §2 would make it basic, with a secret to keep.
		metadata.TokenEndpointAuthMethod = oauth.AuthMethodNone
	}
	return identity{Store: store, redirectURL: redirectURL, metadata: metadata, document: document, fixed: fixed}, nil
}

// RedirectURL implements Provider.
func (id *identity) RedirectURL() string { return id.redirectURL }

// ClientMetadata implements Provider.
func (id *identity) ClientMetadata() oauth.ClientMetadata { return id.metadata }

// ClientMetadataURL implements ClientMetadataDocument.
func (id *identity) ClientMetadataURL() string { return id.document }

// ClientInformation implements Provider. A client that was registered
// beforehand is the same for all; the store keeps to which authorization server
// it belongs.
func (id *identity) ClientInformation(ctx context.Context, issuer string) (*ClientInformation, error) {
	if id.fixed == nil {
		return id.Store.ClientInformation(ctx, issuer)
	}
	if id.fixed.Issuer != "" {
		return id.fixed, nil
	}
	bound, err := id.Store.ClientInformation(ctx, "")
	if err != nil {
		return nil, err
	}
	client := *id.fixed
	if bound != nil && bound.ClientID == client.ClientID {
		client.Issuer = bound.Issuer
	}
	return &client, nil
}

// hasFixedClient tells Auth not to register.
func (id *identity) hasFixedClient() bool { return id.fixed != nil }

package mcpauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

// newSource decides in whose name requests are sent.
func (t *Transport) newSource(r *RemoteServer) (tokenSource, error) {
	switch c := r.Credentials; c.Kind {
	case kindClientCredentials, kindPrivateKeyJWT:
		return t.machineSource(r)
	case kindRefreshToken:
		return t.seededSource(r)
	case kindLogin:
		return t.loginSource(r)
	case kindUpstreamToken:
		return t.upstreamTokenSource(r)
	default:
		return t.userSource(r)
	}
}

// newClient returns a client for a provider that keeps its tokens in the store.
func (t *Transport) newClient(r *RemoteServer, provider authclient.Provider, s *patientStore, canStepUp bool) (*grantClient, error) {
	o := authclient.TransportOptions{
		Next: server{&t.HTTPTransport}, Auth: t.options(r), ReplayLimit: r.ReplayLimit, NoCallbackWait: true,
	}
	if r.StepUpOff || !canStepUp {
		o.OnInsufficientScope = authclient.Throw
	}
	transport, err := authclient.WithOAuth(provider, r.Resource, o)
	if err != nil {
		return nil, err
	}
	return &grantClient{
		Transport: transport, provider: provider, store: s, options: o.Auth, server: &t.HTTPTransport,
		first: make(chan struct{}, 1), advise: adviceFor(r),
	}, nil
}

// options are those of every way to get a token.
func (t *Transport) options(r *RemoteServer) authclient.Options {
	o := authclient.Options{
		ServerURL:      r.Resource,
		ExpectedIssuer: r.AuthorizationServer,
		AllowOrigins:   r.AllowOrigins,
		Logger:         pooledLogger("http.reverse_proxy.transport.mcp_oauth"),
	}
	if client := t.ownClient(r); client != nil {
		o.HTTPClient = client
	}
	return o
}

// adviceFor says what to do when the client is refused.
func adviceFor(r *RemoteServer) func(ctx context.Context, err error) error {
	advice := "correct client_id and client_secret"
	switch r.Credentials.Kind {
	case kindPrivateKeyJWT:
		advice = "correct client_id and key"
	case kindLogin:
		advice = "the client of the login is not known any more: " + loginAgain(r) + ", which registers a new one"
	}
	return func(_ context.Context, err error) error {
		if !clientRefused(err) {
			return nil
		}
		return fmt.Errorf("%w; %s", err, advice)
	}
}

// loginAgain is how to sign in from a terminal.
func loginAgain(r *RemoteServer) string {
	command := "as the user that Caddy runs as, run: caddy mcp-auth login " + r.Resource
	if r.Credentials.File != "" {
		command += " --out " + r.Credentials.File
	}
	return command
}

// machineSource is a client of its own. Its tokens are kept in memory, over a
// reload too: another one costs one request.
func (t *Transport) machineSource(r *RemoteServer) (tokenSource, error) {
	p, err := t.app.acquire("remote", r, func() (any, error) {
		s := newPatientStore(authclient.NewMemoryStore())
		provider, err := r.machine(s)
		if err == nil && r.Credentials.DPoP {
			provider, err = bound(provider)
		}
		return &machineGrant{provider, s}, err
	})
	if err != nil {
		return nil, err
	}
	grant := p.value.(*machineGrant)
	c, err := t.newClient(r, grant.provider, grant.store, true)
	if err != nil {
		return nil, err
	}
	return opened(c), nil
}

// machineGrant is what is kept over a reload.
type machineGrant struct {
	provider authclient.Provider
	store    *patientStore
}

// machine returns the provider of a program that acts for itself.
func (r *RemoteServer) machine(s authclient.Store) (authclient.Provider, error) {
	c := r.Credentials
	var provider authclient.Provider
	var err error
	if c.Kind == kindClientCredentials {
		provider, err = authclient.NewClientCredentials(authclient.ClientCredentialsOptions{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, Method: c.method(), ExpectedIssuer: r.AuthorizationServer,
			Scope: oauth.JoinScope(r.Scopes), ClientName: "caddy", Store: s,
		})
	} else {
		var key authclient.SigningKey
		if key, err = authclient.ParseSigningKey([]byte(c.Key)); err != nil {
			return nil, fmt.Errorf("private_key_jwt: key: %w; write a placeholder for the file, {file./run/secrets/remote_client.pem}", err)
		}
		if c.Algorithm != "" {
			key.Algorithm = c.Algorithm
		}
		if c.KeyID != "" {
			key.ID = c.KeyID
		}
		provider, err = authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{
			ClientID: c.ClientID, Key: key, ExpectedIssuer: r.AuthorizationServer,
			Scope: oauth.JoinScope(r.Scopes), ClientName: "caddy", Store: s,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Kind, err)
	}
	return provider, nil
}

// boundClient and boundKey are machines whose tokens are bound to a key.
type (
	boundClient struct {
		*authclient.ClientCredentials
		*authclient.DPoP
	}
	boundKey struct {
		*authclient.PrivateKeyJWT
		*authclient.DPoP
	}
)

// bound adds proofs of possession, with a key that lives as long as the tokens.
func bound(provider authclient.Provider) (authclient.Provider, error) {
	dpop, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		return nil, err
	}
	if p, ok := provider.(*authclient.PrivateKeyJWT); ok {
		return boundKey{p, dpop}, nil
	}
	return boundClient{provider.(*authclient.ClientCredentials), dpop}, nil
}

// method is the client authentication by its registered name; "" for either.
func (c *RemoteCredentials) method() string {
	switch {
	case c.ClientAuth == "basic":
		return oauth.AuthMethodClientSecretBasic
	case c.ClientAuth == "post":
		return oauth.AuthMethodClientSecretPost
	case c.ClientSecret == "":
		return oauth.AuthMethodNone
	}
	return ""
}

// client is the configured client, nil if there is none.
func (r *RemoteServer) client() *authclient.ClientInformation {
	c := r.Credentials
	if c.ClientID == "" {
		return nil
	}
	client := &authclient.ClientInformation{Issuer: r.AuthorizationServer}
	client.ClientID, client.ClientSecret, client.TokenEndpointAuthMethod = c.ClientID, c.ClientSecret, c.method()
	return client
}

// seededSource is the grant of a configured refresh token. Those that replace it
// are kept in the store of mcp_auth.
func (t *Transport) seededSource(r *RemoteServer) (tokenSource, error) {
	t.app.expectStore()
	return &oneSource{open: func() (*grantClient, error) {
		c := r.Credentials
		// Several proxies may have grants of one client: the token to begin with
		// tells them apart.
		kept := newGrantStore(t.grants(r), remoteKey("grant", r.AuthorizationServer, c.ClientID, hashSeed(c.RefreshToken)))
		kept.seed, kept.formerKey = c.RefreshToken, remoteKey("grant", r.AuthorizationServer, c.ClientID)
		s := newPatientStore(kept)
		return t.newClient(r, &storedGrant{
			store: s, scopes: r.Scopes, fixed: r.client(),
			signIn: errors.New("the authorization server does not accept the refresh token any more: sign in anew and configure another refresh_token"),
		}, s, false)
	}}, nil
}

// loginSource is the grant that the login command stored.
func (t *Transport) loginSource(r *RemoteServer) (tokenSource, error) {
	path := r.Credentials.File
	if path == "" {
		path = credentialPath(r.Resource)
	}
	return &oneSource{open: func() (*grantClient, error) {
		file, err := authclient.OpenFileStore(path, authclient.FileOptions{ServerURL: r.Resource})
		if err != nil {
			return nil, fmt.Errorf("credential file: %w", err)
		}
		s := newPatientStore(file)
		return t.newClient(r, &storedGrant{
			store: s, scopes: r.Scopes,
			signIn: fmt.Errorf("%w: %s (the credential belongs in %s)", errNoStoredLogin, loginAgain(r), path),
			ended:  fmt.Errorf("the grant of the login has ended: %s (the credential belongs in %s)", loginAgain(r), path),
		}, s, false)
	}}, nil
}

// grants returns the part of the store that belongs to the remote server.
func (t *Transport) grants(r *RemoteServer) func() (store.Store, error) {
	return func() (store.Store, error) { return t.app.issuerStore("mcp_oauth " + r.Resource) }
}

// remoteKey is a key of that part.
func remoteKey(kind string, names ...string) string {
	h := sha256.New()
	for _, name := range names {
		_, _ = fmt.Fprintf(h, "%d:%s", len(name), name)
	}
	return kind + "/" + hex.EncodeToString(h.Sum(nil)[:16])
}

// hashSeed tells one configured refresh token from another.
func hashSeed(seed string) string {
	sum := sha256.Sum256([]byte("seed " + seed))
	return hex.EncodeToString(sum[:16])
}

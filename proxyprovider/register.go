package proxyprovider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// registrar is a clientStore that registers clients upstream.
type registrar struct {
	*clientStore
	upstream *upstream
	relay    *relay // nil if the callback is direct
	seen     *seenIDs
	// scopes are added to what a client registers for.
	scopes []string
	// upstreamScope is what is asked of the upstream for scopes.
	upstreamScope func(ctx context.Context, scopes []string) string
	// closedLog and sharedLog keep what strangers can provoke to one line each.
	closedLog, sharedLog onceLog
}

// RegisterClient registers the client upstream (RFC 7591) with the metadata of
// c and none of its credentials, which are ours. The id that it returns holds
// what has to be remembered, sealed; the secret is the upstream's.
func (s *registrar) RegisterClient(ctx context.Context, c *oauth.Client) (*oauth.Client, error) {
	asked := c.ClientMetadata
	asked.Extra = nil
	if !slices.Contains(append(sealedMethods(), ""), asked.TokenEndpointAuthMethod) {
		return nil, oauth.ErrInvalidClientMetadata.Describe("token_endpoint_auth_method must be none, client_secret_basic or client_secret_post: no other can be relayed")
	}
	relayed := s.relay != nil && s.relay.wanted(ctx)
	if relayed {
		s.relay.ownCallback(&asked)
	}
	own := strings.Fields(asked.Scope)
	narrow := s.upstreamScope(ctx, own)
	asked.Scope = s.widenedScope(ctx, own)
	registered, body, err := s.register(ctx, asked)
	if asked.Scope != narrow && (errors.Is(err, oauth.ErrInvalidClientMetadata) || errors.Is(err, errClosed)) {
		// It may be a scope that the client has not asked for.
		asked.Scope = narrow
		registered, body, err = s.register(ctx, asked)
	}
	if errors.Is(err, errClosed) {
		return nil, s.closed(err)
	}
	if err != nil {
		return nil, err
	}
	registered.Scope = oauth.JoinScope(slices.DeleteFunc(strings.Fields(registered.Scope), func(scope string) bool {
		return slices.Contains(s.scopes, scope) && !slices.Contains(own, scope)
	}))
	s.closedLog.gone()
	if err := s.checkOwn(registered.ClientID, body); err != nil {
		return nil, err
	}
	if relayed {
		registered.RedirectURIs, registered.ApplicationType = c.RedirectURIs, c.ApplicationType
	}
	return s.handOut(registered, c.TokenEndpointAuthMethod == "", relayed)
}

// register makes one registration, and returns it with the metadata that was sent.
func (s *registrar) register(ctx context.Context, asked oauth.ClientMetadata) (registered *oauth.Client, sent []byte, _ error) {
	sent, err := json.Marshal(asked)
	if err != nil {
		return nil, nil, err
	}
	answer, err := s.request(ctx, sent)
	if err != nil {
		return nil, nil, err
	}
	m, refused, err := readAnswer(answer, readObject)
	if refused != nil {
		return nil, nil, registrationError(refused)
	}
	if err != nil {
		if answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden {
			return nil, nil, fmt.Errorf("%w: %w", errClosed, err)
		}
		return nil, nil, unavailable(err)
	}
	registered, err = readRegistration(asked, sent, m)
	return registered, sent, err
}

// widenedScope is what a client is registered for upstream that asks for scopes:
// also those that it may have to step up to, because many upstreams refuse, for
// good, what a client is not registered for. A client that asks for none is left
// to the upstream, which as a rule lets it have all.
func (s *registrar) widenedScope(ctx context.Context, scopes []string) string {
	if len(scopes) == 0 {
		return ""
	}
	for _, scope := range s.scopes {
		if !slices.Contains(scopes, scope) {
			scopes = append(slices.Clip(scopes), scope)
		}
	}
	return s.upstreamScope(ctx, scopes)
}

// ownCallback puts our callback in the place of the client's redirect URIs, and
// the application type with which an upstream accepts it (OpenID Connect Dynamic
// Client Registration §2): web clients have https, native ones http on loopback.
func (y *relay) ownCallback(m *oauth.ClientMetadata) {
	m.RedirectURIs = []string{y.callbackURL()}
	m.ApplicationType = oauth.ApplicationTypeWeb
	if strings.HasPrefix(y.origin, "http:") {
		m.ApplicationType = oauth.ApplicationTypeNative
	}
}

func (s *registrar) request(ctx context.Context, body []byte) (*safehttp.Answer, error) {
	to, err := s.upstream.url(ctx, registrationEndpoint)
	if errors.Is(err, errNoEndpoint) {
		return nil, errNoRegistration()
	} else if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, unavailable(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return s.upstream.do(ctx, registrationEndpoint, req)
}

func errNoRegistration() error {
	return oauth.ErrAccessDenied.Describe("The upstream identity provider offers no dynamic registration; use a client id that the operator registered")
}

// errClosed is the error of a registration that needs a token.
var errClosed = errors.New("registration is closed")

// registrationError is the error of a registration that the upstream refuses.
func registrationError(r *refusal) error {
	cause := r.cause("registration", nil)
	switch r.code {
	case "invalid_redirect_uri":
		return oauth.ErrInvalidRedirectURI.Describe("The identity provider refused the redirect URIs").Because(cause)
	case "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement", "invalid_scope":
		return oauth.ErrInvalidClientMetadata.Describe("The identity provider refused the client metadata").Because(cause)
	}
	if r.status == http.StatusUnauthorized || r.status == http.StatusForbidden {
		return fmt.Errorf("%w: %w", errClosed, cause)
	}
	return unavailable(cause)
}

// closed is the answer when the upstream registers nobody without a token of
// its own (RFC 7591 §3, initial access token), which will not pass by itself.
func (s *registrar) closed(cause error) error {
	if s.closedLog.first() {
		s.upstream.log.Error("the upstream identity provider takes no registrations from here; allow them there, or turn registration off here and add static clients, or use the broker mode",
			"upstream", s.upstream.identity, "error", cause)
	}
	return errNoRegistration()
}

// readRegistration reads the upstream's answer, a client information response
// (RFC 7591 §3.2.1). What it leaves out, or sends in a form that cannot be
// read, is as asked, for upstreams are sloppy there, except for the members
// that carry the security. Members that are not standard are dropped; with them
// go registration_access_token and registration_client_uri, which would let the
// client change its registration behind our back.
func readRegistration(asked oauth.ClientMetadata, askedJSON []byte, answer members) (*oauth.Client, error) {
	merged := make(members)
	if err := json.Unmarshal(askedJSON, &merged); err != nil {
		return nil, err
	}
	delete(merged, "token_endpoint_auth_method") // what is absent is decided below
	for name, raw := range answer {
		if answer.absent(name) {
			continue
		}
		probe, err := json.Marshal(members{"client_id": json.RawMessage(`"x"`), name: raw})
		if err != nil {
			return nil, unavailable(err)
		}
		var c oauth.Client
		err = c.UnmarshalJSON(probe)
		switch {
		case err == nil && c.Extra == nil:
			merged[name] = raw
		case err != nil && slices.Contains([]string{"client_id", "client_secret", "client_secret_expires_at", "redirect_uris", "token_endpoint_auth_method"}, name):
			return nil, unavailable(fmt.Errorf("the upstream's registration response: %w", err))
		}
	}
	data, err := json.Marshal(merged)
	if err != nil {
		return nil, unavailable(err)
	}
	c := new(oauth.Client)
	if err := c.UnmarshalJSON(data); err != nil {
		return nil, unavailable(fmt.Errorf("the upstream's registration response: %w", err))
	}
	if c.ClientID == "" || !isVSCHAR(c.ClientID) || !isVSCHAR(c.ClientSecret) {
		return nil, unavailable(errors.New("the upstream's registration response has no usable client_id or client_secret"))
	}
	if err := settleMethod(c, asked.TokenEndpointAuthMethod); err != nil {
		return nil, err
	}
	// Both must have named a redirect URI: we vouch for what was asked, the
	// upstream for what it registered.
	c.RedirectURIs = slices.DeleteFunc(c.RedirectURIs, func(uri string) bool { return !slices.Contains(asked.RedirectURIs, uri) })
	if len(c.RedirectURIs) == 0 {
		return nil, oauth.ErrInvalidRedirectURI.Describe("The identity provider registered none of the redirect URIs as they were sent")
	}
	return c, nil
}

// settleMethod decides how the client authenticates: as the upstream says, else
// as asked, else client_secret_basic if there is a secret (RFC 7591 §2).
func settleMethod(c *oauth.Client, asked string) error {
	method := c.TokenEndpointAuthMethod
	if method == "" {
		method = asked
	}
	switch {
	case method != "" && !slices.Contains(sealedMethods(), method):
		return oauth.ErrInvalidClientMetadata.Describe("The identity provider chose a token_endpoint_auth_method that cannot be relayed; ask for none, client_secret_basic or client_secret_post")
	case c.ClientSecret == "":
		method = oauth.AuthMethodNone
	case method == "":
		method = oauth.AuthMethodClientSecretBasic
	}
	c.TokenEndpointAuthMethod = method
	if method == oauth.AuthMethodNone {
		c.ClientSecret = ""
	}
	if c.ClientSecret == "" {
		c.ClientSecretExpiresAt = 0
	}
	return nil
}

// checkOwn refuses an upstream that gives one client to several: each could
// have codes that are meant for another sent to itself (R44, confused deputy).
func (s *registrar) checkOwn(upstreamID string, metadata []byte) error {
	if s.static[upstreamID] == nil && s.seen.add(sha256.Sum256([]byte(upstreamID)), sha256.Sum256(metadata)) {
		return nil
	}
	if s.sharedLog.first() {
		s.upstream.log.Error("the upstream identity provider answers different registrations with the same client_id, so that clients could get each other's codes (confused deputy); such an upstream needs the broker mode (upstream …), where each client has its own consent",
			"upstream", s.upstream.identity, "upstream_client_hash", hashID(upstreamID))
	}
	return oauth.ErrServerError.Describe("The identity provider gives one client id to several clients, which is unsafe; the operator of this server has to use the broker mode")
}

// handOut seals what has to be remembered into the client_id. Who asked for no
// method of client authentication is told the upstream's, and not held to it: many
// clients send their secret in the body whatever the answer says.
func (s *registrar) handOut(c *oauth.Client, anyMethod, relayed bool) (*oauth.Client, error) {
	sealed := &sealedClient{
		upstreamID:      c.ClientID,
		secret:          c.ClientSecret,
		secretExpiresAt: c.ClientSecretExpiresAt,
		method:          c.TokenEndpointAuthMethod,
		anyMethod:       anyMethod && c.TokenEndpointAuthMethod != oauth.AuthMethodNone,
		redirectURIs:    c.RedirectURIs,
		grantTypes:      c.GrantTypes,
		applicationType: c.ApplicationType,
		name:            c.ClientName,
		scope:           c.Scope,
	}
	if relayed {
		sealed.callback = s.relayed
	}
	errTooLong := oauth.ErrInvalidClientMetadata.Describe("The client metadata is too long for this server; register fewer or shorter redirect URIs")
	if !sealed.fit() {
		return nil, errTooLong
	}
	id, err := s.seals.sealID(sealed.encode())
	if errors.Is(err, seal.ErrTooLarge) {
		return nil, errTooLong
	} else if err != nil {
		return nil, err
	}
	c.ClientID = id
	if c.ClientIDIssuedAt == 0 {
		c.ClientIDIssuedAt = s.now().Unix()
	}
	return c, nil
}

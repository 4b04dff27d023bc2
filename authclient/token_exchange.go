package authclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Grant types of assertions and of token exchange.
const (
	// GrantTypeJWTBearer is RFC 7523 §2.1.
	GrantTypeJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	// GrantTypeTokenExchange is RFC 8693 §2.1.
	GrantTypeTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// Token types of token exchange.
const (
	// TokenTypeIDToken and TokenTypeSAML2 are RFC 8693 §3.
	TokenTypeIDToken = "urn:ietf:params:oauth:token-type:id_token"
	TokenTypeSAML2   = "urn:ietf:params:oauth:token-type:saml2"
	// TokenTypeRefreshToken is RFC 8693 §3.
	TokenTypeRefreshToken = "urn:ietf:params:oauth:token-type:refresh_token"
	// TokenTypeIDJAG is draft-ietf-oauth-identity-assertion-authz-grant §8.
	TokenTypeIDJAG = "urn:ietf:params:oauth:token-type:id-jag"
)

// JWTAuthorizationGrantRequest asks an identity provider for an identity
// assertion authorization grant (ID-JAG).
type JWTAuthorizationGrantRequest struct {
	// Audience is the issuer of the MCP server's authorization server, Resource
	// the identifier of the MCP server. Both are required.
	Audience, Resource string
	// SubjectToken is about the user, usually an id_token that the identity
	// provider gave to this client. Required.
	SubjectToken string
	// SubjectTokenType. Default: TokenTypeIDToken.
	SubjectTokenType string
	// ClientID and ClientSecret are those at the identity provider. Without a
	// secret the client is public.
	ClientID, ClientSecret string
	// Method is client_secret_basic or client_secret_post. Default: what the
	// metadata list; without metadata client_secret_post, as the SDK does.
	Method string
	// Scope is space-separated; "" for none.
	Scope string
}

// JWTAuthorizationGrant is an ID-JAG.
type JWTAuthorizationGrant struct {
	// Assertion is the JWT, a secret until it has been used.
	Assertion string
	// Scope is what the identity provider has granted, "" if it did not say.
	Scope string
}

// RequestJWTAuthorizationGrant exchanges the token of a user for an ID-JAG at
// the identity provider (RFC 8693,
// draft-ietf-oauth-identity-assertion-authz-grant §4.3), the SDK's
// requestJwtAuthorizationGrant. Of idp either Metadata with the token endpoint,
// or an URL whose /token it is, is needed.
func RequestJWTAuthorizationGrant(ctx context.Context, idp AuthorizationServer, r JWTAuthorizationGrantRequest) (JWTAuthorizationGrant, error) {
	if err := required("token exchange",
		[2]string{"Audience", r.Audience}, [2]string{"Resource", r.Resource},
		[2]string{"SubjectToken", r.SubjectToken}, [2]string{"ClientID", r.ClientID},
	); err != nil {
		return JWTAuthorizationGrant{}, err
	}
	if r.SubjectTokenType == "" {
		r.SubjectTokenType = TokenTypeIDToken
	}
	form := url.Values{
		"grant_type":           {GrantTypeTokenExchange},
		"requested_token_type": {TokenTypeIDJAG},
		"audience":             {r.Audience},
		"resource":             {r.Resource},
		"subject_token":        {r.SubjectToken},
		"subject_token_type":   {r.SubjectTokenType},
	}
	if r.Scope != "" {
		form.Set("scope", r.Scope)
	}
	client := &ClientInformation{Issuer: idp.Issuer()}
	client.ClientID, client.ClientSecret, client.TokenEndpointAuthMethod = r.ClientID, r.ClientSecret, r.Method
	if r.Method == "" && (idp.Metadata == nil || len(idp.Metadata.TokenEndpointAuthMethodsSupported) == 0) {
		client.TokenEndpointAuthMethod = oauth.AuthMethodClientSecretPost
	}
	tokens, err := idp.requestTokens(ctx, nil, client, form, "")
	if err != nil {
		return JWTAuthorizationGrant{}, fmt.Errorf("the identity provider gives no grant for %s: %w", r.Resource, err)
	}
	// The token_type is "N_A" (RFC 8693 §2.2.1), or whatever; this is what counts.
	var issued string
	if raw := tokens.Extra["issued_token_type"]; json.Unmarshal(raw, &issued) != nil || issued != TokenTypeIDJAG {
		return JWTAuthorizationGrant{}, errors.New("the identity provider issued another kind of token than an identity assertion authorization grant: ask its operator to allow cross-app access for this client")
	}
	assertion, err := trimAssertion("the grant of the identity provider", tokens.AccessToken)
	if err != nil {
		return JWTAuthorizationGrant{}, err
	}
	return JWTAuthorizationGrant{Assertion: assertion, Scope: tokens.Scope}, nil
}

// DiscoverAndRequestJWTAuthorizationGrant finds the token endpoint of the
// identity provider with the issuer first, the SDK's
// discoverAndRequestJwtAuthGrant. The identity provider counts as one that the
// caller chose; of o, HTTPClient, AllowOrigins and
// SkipIssuerMetadataValidation matter.
func DiscoverAndRequestJWTAuthorizationGrant(ctx context.Context, issuer string, r JWTAuthorizationGrantRequest, o Options) (JWTAuthorizationGrant, error) {
	o = o.forIdentityProvider()
	metadata, err := DiscoverAuthorizationServerMetadata(ctx, issuer, o)
	if err != nil {
		return JWTAuthorizationGrant{}, fmt.Errorf("identity provider: %w", err)
	}
	return RequestJWTAuthorizationGrant(ctx, AuthorizationServer{URL: issuer, Metadata: metadata, Options: o}, r)
}

// forIdentityProvider drops what is about the MCP server.
func (o *Options) forIdentityProvider() Options {
	return Options{
		HTTPClient: o.HTTPClient, AllowOrigins: o.AllowOrigins, SkipIssuerMetadataValidation: o.SkipIssuerMetadataValidation,
		ProtocolVersion: o.ProtocolVersion, Logger: o.Logger, Now: o.Now,
	}
}

// JWTAuthorizationGrantExchange is the second half of cross-app access.
type JWTAuthorizationGrantExchange struct {
	// Assertion is the ID-JAG. Required.
	Assertion string
	// Client is the one at the MCP server's authorization server; nil for none.
	// Its Issuer, if set, has to be that of the server.
	Client *ClientInformation
	// Resource and Scope are parameters; "" for none.
	Resource, Scope string
	// Provider may add client authentication and proofs; nil for none.
	Provider Provider
}

// ExchangeJWTAuthorizationGrant redeems an ID-JAG (RFC 7523 §2.1) for tokens of
// the MCP server, the SDK's exchangeJwtAuthGrant.
func ExchangeJWTAuthorizationGrant(ctx context.Context, s AuthorizationServer, x JWTAuthorizationGrantExchange) (*Tokens, error) {
	assertion, err := trimAssertion("the assertion", x.Assertion)
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {GrantTypeJWTBearer}, "assertion": {assertion}}
	if x.Scope != "" {
		form.Set("scope", x.Scope)
	}
	tokens, err := s.requestTokens(ctx, x.Provider, x.Client, form, x.Resource)
	if err == nil && tokens.Scope == "" {
		tokens.Scope = x.Scope
	}
	return tokens, err
}

package proxyprovider

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// ExchangeCode redeems the code upstream. The upstream holds it to its client,
// redirect URI and code verifier; a relayed one is held to them here first.
func (p *proxy) ExchangeCode(ctx context.Context, c *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
	if p.relays(ctx, c) {
		var err error
		if x, err = p.relay.openCode(c, x); err != nil {
			return nil, err
		}
	}
	var f form
	f.add("grant_type", oauth.GrantTypeAuthorizationCode)
	f.add("code", x.Code)
	f.addSet("code_verifier", x.Verifier)
	redirectURI := x.RedirectURI
	if redirectURI == "" {
		// The authorization request went upstream with the redirect URI that its
		// absence stands for, so the upstream wants it again (RFC 6749 §4.1.3).
		redirectURI, _ = oauth.DefaultRedirectURI(c.RedirectURIs)
	}
	f.addSet("redirect_uri", redirectURI)
	f.addSet("resource", p.resource(p.orOnlyResource(ctx, x.Resource)))
	return p.requestTokens(ctx, c, "code exchange", f)
}

// ExchangeRefreshToken opens the refresh token, which must be this client's,
// and exchanges the upstream's one inside.
func (p *proxy) ExchangeRefreshToken(ctx context.Context, c *oauth.Client, x authserver.RefreshExchange) (*oauth.Tokens, error) {
	token, err := p.clients.seals.openRefresh(x.RefreshToken, c.ClientID, p.clients.now())
	if errors.Is(err, seal.ErrInvalid) {
		return nil, oauth.ErrInvalidGrant.Describe("The refresh token is not valid for this client; sign in again").Because(err)
	} else if err != nil {
		return nil, err
	}
	var f form
	f.add("grant_type", oauth.GrantTypeRefreshToken)
	f.add("refresh_token", token)
	f.addSet("scope", p.scope(ctx, x.Scopes))
	f.addSet("resource", p.resource(p.orOnlyResource(ctx, x.Resource)))
	return p.requestTokens(ctx, c, "refresh", f)
}

// requestTokens sends a token request and wraps the refresh token of the
// answer for the client. Without one in the answer to a refresh, the client
// keeps the one that it has (RFC 6749 §6).
func (p *proxy) requestTokens(ctx context.Context, c *oauth.Client, operation string, f form) (*oauth.Tokens, error) {
	client, err := p.clients.upstreamClient(c)
	if err != nil {
		return nil, err
	}
	to, err := p.upstream.requiredURL(ctx, tokenEndpoint)
	if err != nil {
		return nil, err
	}
	answer, err := p.upstream.post(ctx, tokenEndpoint, to, client, f)
	if err != nil {
		return nil, err
	}
	m, refused, err := readAnswer(answer, readObjectOrForm)
	if err != nil {
		return nil, unavailable(err)
	}
	if refused != nil {
		return nil, p.upstream.clientError(operation, client, refused, f)
	}
	tokens, err := readTokens(m)
	if err != nil {
		return nil, unavailable(fmt.Errorf("the upstream's token response: %w", err))
	}
	if tokens.RefreshToken != "" {
		tokens.RefreshToken, err = p.clients.seals.sealRefresh(tokens.RefreshToken, c.ClientID)
		if errors.Is(err, seal.ErrTooLarge) {
			return nil, unavailable(errors.New("the upstream's refresh token is too large"))
		} else if err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

package proxyprovider

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// revokingProxy is a Proxy with revocation.
type revokingProxy struct{ *proxy }

// RevokeToken revokes the token upstream (RFC 7009). A refresh token that was
// given to this client is opened first; everything else is passed on as it is,
// and the upstream decides whether it is this client's.
func (p *revokingProxy) RevokeToken(ctx context.Context, c *oauth.Client, x authserver.Revocation) error {
	client, err := p.clients.upstreamClient(c)
	if err != nil {
		return err
	}
	token, err := p.clients.seals.openRefresh(x.Token, c.ClientID, p.clients.now())
	if errors.Is(err, seal.ErrInvalid) {
		token = x.Token
	} else if err != nil {
		return err
	}
	to, err := p.upstream.url(ctx, revocationEndpoint)
	if errors.Is(err, errNoEndpoint) {
		// RFC 7009 §2.2.1: revocation of this type of token is not supported.
		return oauth.ErrUnsupportedTokenType.Describe("The identity provider behind this server offers no revocation; the token ends by itself")
	} else if err != nil {
		return err
	}
	var f form
	f.add("token", token)
	f.addSet("token_type_hint", x.TokenTypeHint)
	answer, err := p.upstream.post(ctx, revocationEndpoint, to, client, f)
	if err != nil {
		return err
	}
	_, refused, err := readAnswer(answer, readObjectOrForm)
	switch {
	case refused == nil && answer.Status >= 200 && answer.Status < 300:
		return nil // RFC 7009 §2.2: the body is ignored; it is often empty or HTML
	case err != nil:
		return unavailable(err)
	case refused.code == "invalid_token" || refused.code == "invalid_grant":
		return nil // RFC 7009 §2.2: an unknown token is as good as a revoked one
	case refused.code == "unsupported_token_type":
		return oauth.ErrUnsupportedTokenType.Describe("The identity provider does not revoke tokens of this type; the token ends by itself").WithStatus(http.StatusBadRequest)
	}
	return p.upstream.clientError("revocation", client, refused, f)
}

package authclient

import (
	"fmt"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// checkTokenType refuses tokens that the client does not know how to use
// (RFC 6749 §7.1): all but Bearer, and DPoP from whoever got a proof. What an
// identity provider exchanges is no access token, whatever its type says
// (RFC 8693 §2.2.1).
func checkTokenType(tokens *Tokens, r *TokenRequest, proves bool) error {
	switch {
	case strings.EqualFold(tokens.TokenType, "Bearer"),
		proves && strings.EqualFold(tokens.TokenType, "DPoP"),
		r.Form.Get("grant_type") == GrantTypeTokenExchange:
		return nil
	}
	return fmt.Errorf("%w: it issues tokens of the type %q, which this client cannot use: have its operator issue Bearer tokens", ErrIncompatible, oauth.CleanDescription(tokens.TokenType))
}

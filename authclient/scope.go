package authclient

import (
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// scopeOfflineAccess asks for a refresh token (OpenID Connect Core 1.0 §11).
const scopeOfflineAccess = "offline_access"

// SelectScope returns the scope to ask for (MCP authorization, "Scope Selection
// Strategy"), the SDK's determineScope: that of the challenge, else all that
// the resource supports, else the client's own, else "". offline_access is
// added to a scope if the authorization server lists it and the client's
// metadata say refresh_token themselves. Metadata may be nil.
func SelectScope(challenge string, resource *oauth.ProtectedResourceMetadata, server *oauth.Metadata, client oauth.ClientMetadata) string {
	scope := challenge
	if scope == "" && resource != nil {
		scope = strings.Join(resource.ScopesSupported, " ")
	}
	if scope == "" {
		scope = client.Scope
	}
	if scope != "" && server != nil && slices.Contains(server.ScopesSupported, scopeOfflineAccess) &&
		slices.Contains(client.GrantTypes, oauth.GrantTypeRefreshToken) {
		scope = ComputeScopeUnion(scope, scopeOfflineAccess)
	}
	return scope
}

// ComputeScopeUnion returns the scopes of all arguments, each once, in the order
// of their first appearance.
func ComputeScopeUnion(scopes ...string) string {
	var union []string
	has := make(map[string]bool)
	for _, scope := range scopes {
		for token := range strings.FieldsSeq(scope) {
			if !has[token] {
				has[token] = true
				union = append(union, token)
			}
		}
	}
	return strings.Join(union, " ")
}

// IsStrictScopeSuperset reports whether union has a scope that current lacks.
// Then a refresh is not enough, since it cannot widen the scope (RFC 6749 §6).
func IsStrictScopeSuperset(union, current string) bool {
	return missing(union, current) != ""
}

// missing returns the scopes of wanted that current lacks.
func missing(wanted, current string) string {
	has := make(map[string]bool)
	for token := range strings.FieldsSeq(current) {
		has[token] = true
	}
	var lacks []string
	for token := range strings.FieldsSeq(wanted) {
		if !has[token] {
			lacks = append(lacks, token)
		}
	}
	return strings.Join(lacks, " ")
}

// hasScope reports whether the scope contains the token.
func hasScope(scope, token string) bool { return slices.Contains(strings.Fields(scope), token) }

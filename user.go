package mcpauth

import (
	"cmp"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// setUser makes the caller known to the rest of Caddy: {http.auth.user.id},
// which the access log shows, and the other placeholders, through one function
// that costs nothing until it is asked.
func (h *served) setUser(r *http.Request, info *oauth.TokenInfo) {
	if info == nil {
		return // a preflight
	}
	repl, err := replacerOf(r)
	if err != nil {
		return
	}
	repl.Delete(userPrefix + "id") // of a handler before this one
	repl.Map(func(key string) (any, bool) { return userPlaceholder(info, key) })
	if h.server == nil || h.server.Logs != nil {
		if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Set(zap.String("client_id", info.ClientID))
		}
	}
}

const userPrefix = "http.auth.user."

func userPlaceholder(info *oauth.TokenInfo, key string) (any, bool) {
	name, ok := strings.CutPrefix(key, userPrefix)
	if !ok {
		return nil, false
	}
	switch name {
	case "id":
		return cmp.Or(info.UserID, info.ClientID), true
	case "client_id":
		return info.ClientID, true
	case "scopes":
		return oauth.JoinScope(info.Scopes), true
	case "email", "groups":
		return claimText(info.Extra[name]), true
	case "name":
		if text := claimText(info.Extra["name"]); text != "" {
			return text, true
		}
		return claimText(info.Extra["preferred_username"]), true
	}
	if claim, ok := strings.CutPrefix(name, "claims."); ok {
		value, ok := info.Extra[claim]
		if list, isList := value.([]any); isList {
			return claimText(list), true
		}
		return value, ok
	}
	return nil, false
}

// claimText writes a claim that is a string or a list of strings, lists
// separated by commas.
func claimText(claim any) string {
	switch value := claim.(type) {
	case string:
		return value
	case []string:
		return strings.Join(value, ",")
	case []any:
		var texts []string
		for _, element := range value {
			if text, ok := element.(string); ok {
				texts = append(texts, text)
			}
		}
		return strings.Join(texts, ",")
	default:
		return ""
	}
}

package proxyprovider

import (
	"encoding/json"
	"errors"
	"maps"
	"mime"
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxIntrospection bounds the body of an introspection request, in bytes.
const maxIntrospection = 64 << 10

// Introspect returns the handler of the introspection endpoint (RFC 7662), for
// resource servers elsewhere. authenticate says who asks: the canonical
// identifier of the resource that the caller is, and whether it proved that; it
// may read PostForm, which is parsed. A caller learns of access tokens for its
// own resource. Everything else, refresh tokens too, is inactive.
func (g *Grants) Introspect(authenticate func(*http.Request) (resource string, ok bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, resource, e := readIntrospection(w, r, authenticate)
		if e != nil {
			writeGrantError(w, e)
			return
		}
		answer, err := g.introspect(r, token, resource)
		if err != nil {
			g.cfg.Logger.Error("a token cannot be introspected", "error", err)
			writeGrantError(w, oauth.AsError(err))
			return
		}
		body, err := json.Marshal(answer)
		if err != nil {
			writeGrantError(w, oauth.AsError(err))
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n'))
	})
}

func readIntrospection(w http.ResponseWriter, r *http.Request, authenticate func(*http.Request) (string, bool)) (token, resource string, e *oauth.Error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return "", "", oauth.ErrMethodNotAllowed.Describe("Use POST").WithStatus(http.StatusMethodNotAllowed)
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return "", "", oauth.ErrInvalidRequest.Describe("Send the token as application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxIntrospection)
	if err := r.ParseForm(); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return "", "", oauth.ErrInvalidRequest.Describe("The request is too large").WithStatus(http.StatusRequestEntityTooLarge)
		}
		return "", "", oauth.ErrInvalidRequest.Describe("The form cannot be read")
	}
	resource, ok := authenticate(r)
	if !ok || resource == "" { // RFC 7662 §2.3
		w.Header().Set("Www-Authenticate", `Basic realm="introspection"`)
		return "", "", oauth.ErrInvalidClient.Describe("Authenticate as the resource server that the token was sent to")
	}
	if values := r.PostForm["token"]; len(values) == 1 && values[0] != "" {
		return values[0], resource, nil
	}
	return "", "", oauth.ErrInvalidRequest.Describe("token is needed, once")
}

// introspect is the answer (RFC 7662 §2.2).
func (g *Grants) introspect(r *http.Request, token, resource string) (map[string]any, error) {
	info, err := g.VerifyAccessToken(r.Context(), token)
	switch {
	case errors.Is(err, oauth.ErrInvalidToken):
		return map[string]any{"active": false}, nil
	case err != nil:
		return nil, err
	case !oauth.SameResource(info.Resource, resource):
		return map[string]any{"active": false}, nil
	}
	answer := maps.Clone(info.Extra)
	if answer == nil {
		answer = make(map[string]any)
	}
	maps.Copy(answer, map[string]any{
		"active": true, "token_type": "Bearer", "iss": info.Issuer, "sub": info.UserID, "aud": info.Resource,
		"client_id": info.ClientID, "scope": oauth.JoinScope(info.Scopes), "exp": info.ExpiresAt.Unix(),
	})
	return answer, nil
}

package idp

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// client is a dynamically registered client, always public (RFC 7591).
type client struct {
	ID            string   `json:"client_id"`
	IssuedAt      int64    `json:"client_id_issued_at"`
	Name          string   `json:"client_name,omitempty"`
	RedirectURIs  []string `json:"redirect_uris"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	Scope         string   `json:"scope,omitempty"`
}

// register answers RFC 7591 registration. Whatever method a client asks for,
// it becomes public.
func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	var c client
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		writeError(w, &oauthError{"invalid_client_metadata", "the body must be a JSON object of client metadata"})
		return
	}
	if len(c.RedirectURIs) == 0 || len(c.RedirectURIs) > 20 {
		writeError(w, &oauthError{"invalid_redirect_uri", "register 1 to 20 redirect URIs"})
		return
	}
	if !all(c.RedirectURIs, redirectable) {
		writeError(w, &oauthError{"invalid_redirect_uri", "use https, http on loopback, or the scheme of an app"})
		return
	}
	c.ID = rand.Text()
	c.IssuedAt = s.opts.Now().Unix()
	c.GrantTypes = []string{"authorization_code", "refresh_token"}
	c.ResponseTypes = []string{"code"}
	c.AuthMethod = "none"
	if err := s.grants.addClient(&c); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, c)
}

// redirectable tells whether a redirect URI may be registered: https, http on
// loopback, or the private-use scheme of an app, never one that a browser
// runs or reads itself (RFC 8252 §7).
func redirectable(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Fragment != "" || strings.Contains(raw, "#") || u.User != nil {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Host != ""
	case "http":
		return isLoopback(u.Hostname())
	case "", "about", "blob", "data", "file", "ftp", "javascript", "mailto", "vbscript", "ws", "wss":
		return false
	}
	return true
}

// allows tells whether a client may be redirected to a URI: one that it
// registered, on loopback with any port (RFC 8252 §7.3).
func (c *client) allows(uri string) bool {
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		return uri == registered || redirectable(uri) && withoutLoopbackPort(uri) == withoutLoopbackPort(registered)
	})
}

func withoutLoopbackPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || !isLoopback(u.Hostname()) || u.Port() == "" {
		return raw
	}
	return strings.Replace(raw, ":"+u.Port(), "", 1)
}

func all[T any](values []T, ok func(T) bool) bool {
	return !slices.ContainsFunc(values, func(v T) bool { return !ok(v) })
}

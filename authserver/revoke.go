package authserver

import (
	"errors"
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// serveRevoke is the revocation endpoint (RFC 7009).
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	form, err := s.readForm(w, r)
	if err != nil {
		s.failCounted(w, r, revokePath, form, err)
		return
	}
	if err := form.once(); err != nil {
		s.failCounted(w, r, revokePath, form, err)
		return
	}
	client, err := s.authenticate(w, r, revokePath, form)
	if err != nil {
		s.failCounted(w, r, revokePath, form, err)
		return
	}
	token, err := form.required("token")
	if err != nil {
		s.failCounted(w, r, revokePath, form, err)
		return
	}
	err = s.revoker.RevokeToken(r.Context(), client, Revocation{Token: token, TokenTypeHint: form.get("token_type_hint")})
	if errors.Is(err, oauth.ErrInvalidToken) {
		// RFC 7009 §2.2: an unknown token is no error. A provider that tells of
		// one lets it be counted.
		err = s.limits.countFailure(w.Header(), r, revokePath, client.ClientID)
	}
	if err != nil {
		s.failCounted(w, r, revokePath, form, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

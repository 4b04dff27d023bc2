package idp

import (
	_ "embed"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

//go:embed signin.html
var signInHTML string

// signInTemplate is the sign-in page.
var signInTemplate = template.Must(template.New("signin").Parse(signInHTML))

// authorization is a checked authorization request.
type authorization struct {
	client      *client
	redirectURI string
	state       string
	challenge   string
	scope       []string
	resource    string
	nonce       string
}

// signInPage answers GET /authorize with a page to click on.
func (s *Server) signInPage(w http.ResponseWriter, r *http.Request) {
	a, ok := s.authorization(w, r)
	if !ok {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	name := a.client.Name
	if name == "" {
		name = "A client without a name"
	}
	_ = signInTemplate.Execute(w, map[string]any{
		"Client":   name,
		"Redirect": a.redirectURI,
		"Resource": a.resource,
		"Scope":    strings.Join(a.scope, " "),
		"Users":    s.opts.Users,
		"Action":   authorizePath + "?" + r.URL.RawQuery,
	})
}

// signIn answers the click: a code, or access_denied.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	a, ok := s.authorization(w, r)
	if !ok {
		return
	}
	user := r.PostFormValue("user")
	if !slices.Contains(s.opts.Users, user) {
		a.refuse(w, r, &oauthError{"access_denied", "the user declined"})
		return
	}
	code, err := s.grants.addCode(a, user)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	a.redirect(w, r, url.Values{"code": {code}})
}

// authorization checks the request in the query. When it returns false it
// has answered: on a page of its own until the redirect URI is proven, with
// a redirect from there on (RFC 6749 §4.1.2.1).
func (s *Server) authorization(w http.ResponseWriter, r *http.Request) (*authorization, bool) {
	q, err := form(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return nil, false
	}
	c := s.grants.client(q.Get("client_id"))
	if c == nil {
		writeError(w, &oauthError{"invalid_client", "the client is unknown, this provider forgets all when it restarts: register again"})
		return nil, false
	}
	a := &authorization{
		client:      c,
		redirectURI: q.Get("redirect_uri"),
		state:       q.Get("state"),
		challenge:   q.Get("code_challenge"),
		scope:       strings.Fields(q.Get("scope")),
		resource:    q.Get("resource"),
		nonce:       q.Get("nonce"),
	}
	if !c.allows(a.redirectURI) {
		writeError(w, &oauthError{"invalid_request", "the client did not register this redirect_uri"})
		return nil, false
	}
	if len(a.scope) == 0 {
		a.scope = s.opts.Scopes
	}
	if a.resource == "" {
		a.resource = s.opts.Audience
	}
	if err := a.check(q); err != nil {
		a.refuse(w, r, err)
		return nil, false
	}
	return a, true
}

// check is for what may be answered to the redirect URI.
func (a *authorization) check(q url.Values) error {
	if q.Get("response_type") != "code" {
		return &oauthError{"unsupported_response_type", "response_type must be code"}
	}
	// RFC 7636 §4.2: 32 bytes of SHA-256 in base64url.
	if q.Get("code_challenge_method") != "S256" || len(a.challenge) != 43 {
		return &oauthError{"invalid_request", "send a code_challenge with code_challenge_method S256"}
	}
	u, err := url.Parse(a.resource)
	if err != nil || !u.IsAbs() || u.Fragment != "" {
		return &oauthError{"invalid_target", "send resource, an absolute URI without fragment"}
	}
	return nil
}

// refuse redirects with an error.
func (a *authorization) refuse(w http.ResponseWriter, r *http.Request, err error) {
	oe, ok := err.(*oauthError)
	if !ok {
		oe = &oauthError{"server_error", "the provider failed"}
	}
	a.redirect(w, r, url.Values{"error": {oe.Code}, "error_description": {oe.Description}})
}

// redirect ends the request at the client. A 303 makes the browser's POST a
// GET (RFC 9700 §4.12).
func (a *authorization) redirect(w http.ResponseWriter, r *http.Request, answer url.Values) {
	u, err := url.Parse(a.redirectURI)
	if err != nil {
		writeError(w, err)
		return
	}
	if a.state != "" {
		answer.Set("state", a.state)
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += answer.Encode()
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

// Package idp is an OpenID provider for development: authorization code with
// PKCE, JWT access tokens, refresh tokens that rotate, dynamic registration.
// It asks for no password and forgets everything when it ends.
//
// It does not send iss in authorization responses (RFC 9207). Behind a proxy
// that relays its redirect unchanged, a strict client would compare that iss
// to the issuer it knows, which is the proxy's, and refuse.
package idp

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Paths of the endpoints below the issuer.
const (
	authorizePath = "/authorize"
	tokenPath     = "/token"
	registerPath  = "/register"
	revokePath    = "/revoke"
	jwksPath      = "/jwks.json"
)

// maxBody is the size limit of request bodies in bytes.
const maxBody = 64 << 10

// Options are the settings of a [Server].
type Options struct {
	// Issuer is the issuer identifier: http, a loopback host and a port, as
	// in http://localhost:9400. Required.
	Issuer string

	// Audience goes into access tokens for which the client named no
	// resource (RFC 8707). Empty refuses such requests with invalid_target.
	Audience string

	// Users are the names that the sign-in page offers. Default: alice.
	Users []string

	// Scopes are granted when a client asks for none, and advertised.
	// Default: mcp:read.
	Scopes []string

	// AccessTTL is the lifetime of access tokens. Default: 5 minutes.
	AccessTTL time.Duration

	// RefreshTTL is the lifetime of refresh tokens. Default: 24 hours.
	RefreshTTL time.Duration

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

// Server is the provider as an [http.Handler].
type Server struct {
	opts   Options
	host   string
	key    *rsa.PrivateKey
	keyID  string
	grants *grants
	mux    http.Handler
}

// New checks the options, makes a signing key and returns the provider.
func New(opts Options) (*Server, error) {
	issuer, err := url.Parse(opts.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if issuer.Scheme != "http" || issuer.Host == "" || issuer.String() != "http://"+issuer.Host {
		return nil, fmt.Errorf("issuer %q must be http://HOST:PORT and nothing more", opts.Issuer)
	}
	if !isLoopback(issuer.Hostname()) {
		return nil, fmt.Errorf("issuer %q must be on loopback: this provider asks for no password", opts.Issuer)
	}
	if len(opts.Users) == 0 {
		opts.Users = []string{"alice"}
	}
	if len(opts.Scopes) == 0 {
		opts.Scopes = []string{"mcp:read"}
	}
	if opts.AccessTTL == 0 {
		opts.AccessTTL = 5 * time.Minute
	}
	if opts.RefreshTTL == 0 {
		opts.RefreshTTL = 24 * time.Hour
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, host: issuer.Host, key: key, keyID: rand.Text(), grants: newGrants(opts.Now)}

	// A web page of another origin must not click for the user.
	sameOrigin := http.NewCrossOriginProtection()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.metadata)
	mux.HandleFunc("GET /.well-known/openid-configuration", s.metadata)
	mux.HandleFunc("GET "+jwksPath, s.jwks)
	mux.HandleFunc("GET "+authorizePath, s.signInPage)
	mux.Handle("POST "+authorizePath, sameOrigin.Handler(http.HandlerFunc(s.signIn)))
	mux.HandleFunc("POST "+tokenPath, s.token)
	mux.HandleFunc("POST "+registerPath, s.register)
	mux.HandleFunc("POST "+revokePath, s.revoke)
	s.mux = mux
	return s, nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Another name that resolves to loopback is DNS rebinding.
	if r.Host != s.host {
		http.Error(w, "this provider is "+s.opts.Issuer, http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	w.Header().Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, r)
}

// metadata answers with RFC 8414 metadata, which is OpenID Connect discovery
// at the same time.
func (s *Server) metadata(w http.ResponseWriter, _ *http.Request) {
	at := func(path string) string { return s.opts.Issuer + path }
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                     s.opts.Issuer,
		"authorization_endpoint":                     at(authorizePath),
		"token_endpoint":                             at(tokenPath),
		"registration_endpoint":                      at(registerPath),
		"revocation_endpoint":                        at(revokePath),
		"jwks_uri":                                   at(jwksPath),
		"scopes_supported":                           slices.Concat([]string{"openid", "offline_access"}, s.opts.Scopes),
		"response_types_supported":                   []string{"code"},
		"grant_types_supported":                      []string{"authorization_code", "refresh_token"},
		"code_challenge_methods_supported":           []string{"S256"},
		"token_endpoint_auth_methods_supported":      []string{"none"},
		"revocation_endpoint_auth_methods_supported": []string{"none"},
		"subject_types_supported":                    []string{"public"},
		"id_token_signing_alg_values_supported":      []string{"RS256"},
	})
}

// oauthError is an error of RFC 6749 §5.2 and §4.1.2.1.
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// Error implements error.
func (e *oauthError) Error() string { return e.Code + ": " + e.Description }

// writeError answers with a JSON error, 400 unless it says otherwise.
func writeError(w http.ResponseWriter, err error) {
	var oe *oauthError
	if !errors.As(err, &oe) {
		oe = &oauthError{"server_error", "the provider failed"}
	}
	status := http.StatusBadRequest
	switch oe.Code {
	case "invalid_client":
		status = http.StatusUnauthorized
	case "temporarily_unavailable":
		status = http.StatusServiceUnavailable
	case "server_error":
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, oe)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// form returns the parameters of a request, none of which may come twice
// (RFC 6749 §3.1).
func form(values url.Values) (url.Values, error) {
	for name, v := range values {
		if len(v) > 1 {
			return nil, &oauthError{"invalid_request", "a parameter is repeated"}
		}
		if v[0] == "" {
			delete(values, name)
		}
	}
	return values, nil
}

// isLoopback tells whether a host name is loopback (RFC 8252 §7.3).
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

package authserver

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Server is the authorization server. It is safe for concurrent use.
type Server struct {
	config    Config
	base      *url.URL
	metadata  oauth.Metadata
	limits    *limiter
	registrar Registrar // nil: no registration
	revoker   Revoker   // nil: no revocation
	// iss is the value of the iss parameter, "" if there is none.
	iss string
	// unknownSecret stands in for the secret of a client that does not exist.
	unknownSecret string
	endpoints     map[string]http.Handler
}

// New returns a Server. It does no I/O.
func New(config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(config.BaseURL)
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, base: base, limits: newLimiter(config)}
	s.registrar, _ = config.Provider.Clients().(Registrar)
	s.revoker, _ = config.Provider.(Revoker)
	s.iss = config.Issuer
	if p, ok := config.Provider.(IssParameter); ok && !p.SupportsIssParameter() {
		s.iss = ""
	}
	if s.unknownSecret, err = s.randomString(secretBytes); err != nil {
		return nil, err
	}
	s.metadata = s.buildMetadata()
	if err := s.buildEndpoints(); err != nil {
		return nil, err
	}
	return s, nil
}

// buildEndpoints fills the table of paths.
func (s *Server) buildEndpoints() error {
	s.endpoints = make(map[string]http.Handler)
	documents, err := s.documents()
	if err != nil {
		return err
	}
	for path, document := range documents {
		s.mount(path, document)
	}
	prefix := strings.TrimRight(s.base.Path, "/")
	s.mount(prefix+authorizePath, &endpoint{server: s, methods: []string{"GET", "HEAD", "POST"}, browser: true, serve: s.serveAuthorize})
	s.mount(prefix+tokenPath, &endpoint{server: s, methods: []string{"POST"}, serve: s.serveToken})
	if s.registrar != nil {
		s.mount(prefix+registerPath, &endpoint{server: s, methods: []string{"POST"}, serve: s.serveRegister})
	}
	if s.revoker != nil {
		s.mount(prefix+revokePath, &endpoint{server: s, methods: []string{"POST"}, serve: s.serveRevoke})
	}
	return nil
}

// mount serves handler at path, with and without a trailing slash.
func (s *Server) mount(path string, handler http.Handler) {
	path = strings.TrimRight(path, "/")
	s.endpoints[path] = handler
	s.endpoints[path+"/"] = handler
}

// Endpoint returns the handler of the endpoint at the path of a URL (decoded,
// as in http.Request.URL.Path), nil if this Server has none there. Paths are
// matched exactly, case included; one trailing slash more is allowed. It is a
// map lookup and may be called for every request of a site.
func (s *Server) Endpoint(path string) http.Handler {
	// A nil map value is a nil interface here, never a typed nil.
	return s.endpoints[path]
}

// ServeHTTP serves the endpoints; other paths are 404 with a JSON body.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler := s.Endpoint(r.URL.Path)
	if handler == nil {
		handler = http.HandlerFunc(serveNotFound)
	}
	handler.ServeHTTP(w, r)
}

// Issuer returns the issuer, byte for byte as configured.
func (s *Server) Issuer() string { return s.config.Issuer }

// Metadata returns the authorization server's metadata. The caller must not
// change what its slices and maps hold.
func (s *Server) Metadata() oauth.Metadata { return s.metadata }

func serveNotFound(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	writeError(w, oauth.NewError("not_found", "There is nothing at this path").WithStatus(http.StatusNotFound))
}

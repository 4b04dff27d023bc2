package authserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// buildMetadata makes the document of RFC 8414 §2. Lists that have a default
// there are written out, since the defaults include what OAuth 2.1 forbids.
func (s *Server) buildMetadata() oauth.Metadata {
	c := s.config
	authMethods := []string{oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost, oauth.AuthMethodNone}
	var algorithms []string
	if verifier, ok := c.Provider.Clients().(AssertionVerifier); ok {
		algorithms = verifier.AssertionAlgorithms()
	}
	if len(algorithms) > 0 {
		authMethods = append(authMethods, oauth.AuthMethodPrivateKeyJWT)
	}
	m := oauth.Metadata{
		Issuer:                                     c.Issuer,
		ServiceDocumentation:                       c.ServiceDocumentation,
		AuthorizationEndpoint:                      oauth.JoinURL(c.BaseURL, authorizePath),
		ResponseTypesSupported:                     []string{"code"},
		ResponseModesSupported:                     []string{"query"},
		CodeChallengeMethodsSupported:              []string{"S256"},
		TokenEndpoint:                              oauth.JoinURL(c.BaseURL, tokenPath),
		TokenEndpointAuthMethodsSupported:          authMethods,
		TokenEndpointAuthSigningAlgValuesSupported: slices.Clone(algorithms),
		GrantTypesSupported:                        []string{oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken},
		ScopesSupported:                            c.ScopesSupported,
		// go-sdk refuses an answer with iss unless this says so.
		AuthorizationResponseIssParameterSupported: s.iss != "",
	}
	if s.revoker != nil {
		m.RevocationEndpoint = oauth.JoinURL(c.BaseURL, revokePath)
		m.RevocationEndpointAuthMethodsSupported = slices.Clone(authMethods)
		if len(algorithms) > 0 {
			encoded, err := json.Marshal(algorithms)
			if err == nil { // strings always can be encoded
				m.Extra = map[string]json.RawMessage{"revocation_endpoint_auth_signing_alg_values_supported": encoded}
			}
		}
	}
	if s.registrar != nil {
		m.RegistrationEndpoint = oauth.JoinURL(c.BaseURL, registerPath)
	}
	// Clients look for none among the methods too before they use their document.
	if store, ok := c.Provider.Clients().(DocumentStore); ok {
		m.ClientIDMetadataDocumentSupported = store.SupportsDocuments()
	}
	if c.Resources != nil {
		m.ProtectedResources = c.Resources.All()
	}
	if extender, ok := c.Provider.(MetadataExtender); ok {
		extender.ExtendMetadata(&m)
	}
	return m
}

// isOpenIDConfiguration reports whether the document has what OpenID Connect
// Discovery §3 makes mandatory. Strict readers refuse one that has not.
func isOpenIDConfiguration(m oauth.Metadata) bool {
	return m.JWKSURI != "" && len(m.SubjectTypesSupported) > 0 && len(m.IDTokenSigningAlgValuesSupported) > 0
}

// documents returns the metadata documents by path. Clients look for the
// authorization server's at the root, and with the path of the issuer, or of
// the MCP server, before or after the well-known part:
// https://github.com/modelcontextprotocol/modelcontextprotocol/issues/1080
func (s *Server) documents() (map[string]http.Handler, error) {
	authorizationServer, err := s.document(s.metadata)
	if err != nil {
		return nil, err
	}
	if reviser, ok := s.config.Provider.(MetadataReviser); ok {
		authorizationServer = s.revised(reviser)
	}
	openID := http.Handler(&endpoint{server: s, methods: []string{"GET", "HEAD"}, serve: serveNotFound})
	if isOpenIDConfiguration(s.metadata) {
		openID = authorizationServer
	}
	issuer, err := url.Parse(s.config.Issuer)
	if err != nil {
		return nil, err
	}
	documents := make(map[string]http.Handler)
	for _, path := range append([]string{"", issuer.Path, s.base.Path}, s.config.ResourcePaths...) {
		for name, document := range map[string]http.Handler{
			oauth.WellKnownAuthorizationServer: authorizationServer,
			oauth.WellKnownOpenIDConfiguration: openID,
		} {
			documents[oauth.WellKnownPath(name, path)] = document
			documents[oauth.WellKnownAppendedPath(name, path)] = document
		}
	}
	if s.config.ResourceServerURL == "" {
		return documents, nil
	}
	protectedResource, err := s.document(s.protectedResourceMetadata())
	if err != nil {
		return nil, err
	}
	resource, err := url.Parse(s.config.ResourceServerURL)
	if err != nil {
		return nil, err
	}
	documents[oauth.WellKnownPath(oauth.WellKnownProtectedResource, "")] = protectedResource
	documents[oauth.WellKnownPath(oauth.WellKnownProtectedResource, resource.Path)] = protectedResource
	return documents, nil
}

// protectedResourceMetadata is the document of RFC 9728 §2 for
// Config.ResourceServerURL. offline_access is not among its scopes: it is
// nothing that a resource could ask for.
func (s *Server) protectedResourceMetadata() oauth.ProtectedResourceMetadata {
	return oauth.ProtectedResourceMetadata{
		Resource:             s.config.ResourceServerURL,
		AuthorizationServers: []string{s.config.Issuer},
		ScopesSupported: slices.DeleteFunc(slices.Clone(s.config.ScopesSupported), func(scope string) bool {
			return scope == "offline_access"
		}),
		BearerMethodsSupported: []string{"header"},
		ResourceName:           s.config.ResourceName,
		ResourceDocumentation:  s.config.ServiceDocumentation,
	}
}

// document returns a handler for a public JSON document. The bytes are made
// once, so that they are the same everywhere.
func (s *Server) document(v json.Marshaler) (http.Handler, error) {
	body, err := v.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return &endpoint{
		server:    s,
		methods:   []string{"GET", "HEAD"},
		cacheable: true,
		serve:     func(w http.ResponseWriter, r *http.Request) { writeDocument(w, r, body) },
	}, nil
}

// revisionTime is how long a client waits for what the provider has to learn
// first; after that it gets the metadata as they are.
const revisionTime = 2 * time.Second

// revised is the document of a provider that changes it at run time.
func (s *Server) revised(reviser MetadataReviser) http.Handler {
	return &endpoint{
		server:    s,
		methods:   []string{"GET", "HEAD"},
		cacheable: true,
		serve: func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), revisionTime)
			defer cancel()
			m := s.metadata
			reviser.ReviseMetadata(ctx, &m)
			body, err := m.MarshalJSON()
			if err != nil {
				writeError(w, oauth.AsError(err))
				return
			}
			writeDocument(w, r, body)
		},
	}
}

func writeDocument(w http.ResponseWriter, r *http.Request, body []byte) {
	h := w.Header()
	// Exactly this: go-sdk refuses a charset parameter.
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "public, max-age=300")
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

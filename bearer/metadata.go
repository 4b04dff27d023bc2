package bearer

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// metadataRoot is the bare well-known path of RFC 9728 §3.1.
const metadataRoot = "/.well-known/" + oauth.WellKnownProtectedResource

// Metadata returns the handler for path, the decoded path of a request, if it
// is a place for protected-resource metadata (RFC 9728): the document of a
// resource of this guard, or a 404 as OAuth JSON for any other path at or below
// the well-known one. It returns nil for all other paths.
//
// A resource has its document at the well-known path followed by the path of
// its identifier. The bare path serves the only or the default resource. One
// trailing slash is tolerated.
func (g *Guard) Metadata(path string) http.Handler {
	below, ok := strings.CutPrefix(path, metadataRoot)
	if !ok || below != "" && below[0] != '/' {
		return nil
	}
	if document := g.documents[strings.TrimSuffix(below, "/")]; document != nil {
		return document
	}
	return (*metadataDocument)(nil)
}

// HasMetadata reports whether a resource has its document at the path.
func (g *Guard) HasMetadata(path string) bool {
	below, ok := strings.CutPrefix(path, metadataRoot)
	return ok && g.documents[strings.TrimSuffix(below, "/")] != nil
}

// metadataDocument serves one document; nil serves the 404.
type metadataDocument struct{ body []byte }

// publishMetadata makes the documents, by what follows metadataRoot.
func (g *Guard) publishMetadata() error {
	g.documents = map[string]*metadataDocument{}
	identifiers := map[string]string{}
	var bare *metadataDocument
	for _, res := range g.resources {
		document, err := newMetadataDocument(res)
		if err != nil {
			return fmt.Errorf("resource %q: %w", res.Identifier, err)
		}
		u, err := url.Parse(res.metadataURL)
		if err != nil {
			return fmt.Errorf("resource %q: %w", res.Identifier, err)
		}
		key := strings.TrimPrefix(u.Path, metadataRoot)
		if other, taken := identifiers[key]; taken {
			return fmt.Errorf("resources %q and %q have their metadata at the same path %q; give their identifiers different paths", other, res.Identifier, u.Path)
		}
		identifiers[key] = res.Identifier
		g.documents[key] = document
		if res.Default || len(g.resources) == 1 {
			bare = document
		}
	}
	// The resource whose identifier is the bare origin owns the bare path.
	if g.documents[""] == nil && bare != nil {
		g.documents[""] = bare
	}
	return nil
}

func newMetadataDocument(res *guardedResource) (*metadataDocument, error) {
	// RFC 9728 leaves it optional, MCP requires it.
	if len(res.AuthorizationServers) == 0 {
		return nil, errors.New("an authorization server is needed; name the issuer that clients sign in with")
	}
	for _, issuer := range res.AuthorizationServers {
		if err := checkAbsoluteURL(issuer); err != nil {
			return nil, fmt.Errorf("authorization server %q %w", issuer, err)
		}
	}
	body, err := oauth.ProtectedResourceMetadata{
		Resource:               res.Identifier,
		AuthorizationServers:   slices.Clone(res.AuthorizationServers),
		ScopesSupported:        res.advertised,
		BearerMethodsSupported: []string{"header"},
		ResourceName:           res.Name,
		ResourceDocumentation:  res.Documentation,
	}.MarshalJSON()
	return &metadataDocument{body}, err
}

// ServeHTTP answers GET, HEAD and OPTIONS to any origin: the document is
// public, and browser clients read it before they have anything else.
func (d *metadataDocument) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch {
	case r.Method == http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		reflectRequestedHeaders(h, r)
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		writeError(w, r, oauth.ErrMethodNotAllowed.Describe("The method "+r.Method+" is not allowed for this endpoint"))
	case d == nil:
		writeError(w, r, oauth.NewError("not_found", "No protected resource has its metadata at this path").WithStatus(http.StatusNotFound))
	default:
		h.Set("Cache-Control", "public, max-age=300")
		writeJSON(w, r, http.StatusOK, d.body)
	}
}

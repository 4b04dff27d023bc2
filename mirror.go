package mcpauth

import (
	"encoding/json"
	"net/http"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// mirrorPaths returns, by path, handlers that repeat the metadata of an
// external authorization server, byte for byte. MCP clients of 2025-03-26, and
// some that are newer, look for it at the MCP server's origin, at its root or
// around the resource's path.
func mirrorPaths(source *bearer.Discovery, paths []string) map[string]http.Handler {
	served := make(map[string]http.Handler)
	for _, path := range paths {
		for name, handler := range map[string]http.Handler{
			oauth.WellKnownAuthorizationServer: &mirrorHandler{source: source},
			oauth.WellKnownOpenIDConfiguration: &mirrorHandler{source: source, openID: true},
		} {
			served[oauth.WellKnownPath(name, path)] = handler
			served[oauth.WellKnownAppendedPath(name, path)] = handler
		}
	}
	return served
}

type mirrorHandler struct {
	source *bearer.Discovery
	// openID is for the name under which strict readers want what OpenID Connect
	// Discovery §3 makes mandatory.
	openID bool
}

// ServeHTTP answers with the document as the external server sent it.
func (h *mirrorHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	safehttp.BoundReading(w, r, safehttp.RefusalTime)
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		header.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		if requested := r.Header.Get("Access-Control-Request-Headers"); requested != "" && len(requested) <= 1024 {
			header.Set("Access-Control-Allow-Headers", requested)
		}
		header.Add("Vary", "Access-Control-Request-Headers")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		header.Set("Allow", "GET, HEAD, OPTIONS")
		writeJSONError(w, r, oauth.ErrMethodNotAllowed.Describe("The method "+r.Method+" is not allowed for this endpoint"))
		return
	}
	document, err := h.source.Document(r.Context())
	if err != nil {
		header.Set("Retry-After", "5")
		writeJSONError(w, r, oauth.AsError(err))
		return
	}
	if h.openID {
		metadata, err := h.source.Metadata(r.Context())
		if err != nil || metadata.JWKSURI == "" || len(metadata.SubjectTypesSupported) == 0 || len(metadata.IDTokenSigningAlgValuesSupported) == 0 {
			notOffered(w, r)
			return
		}
	}
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "public, max-age=300")
	if r.Method != http.MethodHead {
		_, _ = w.Write(document)
	}
}

func writeJSONError(w http.ResponseWriter, r *http.Request, e *oauth.Error) {
	safehttp.BoundReading(w, r, safehttp.RefusalTime)
	body, err := json.Marshal(e)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.HTTPStatus())
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

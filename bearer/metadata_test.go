package bearer_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const metadataRoot = "/.well-known/oauth-protected-resource"

// getMetadata asks the guard's own handler; nil if it is not the guard's path.
func getMetadata(guard *bearer.Guard, method, path string, header ...string) *httptest.ResponseRecorder {
	handler := guard.Metadata(path)
	if handler == nil {
		return nil
	}
	request := httptest.NewRequest(method, "http://mcp.example.com/", nil)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder
}

func TestMetadataDocument(t *testing.T) {
	resource := bearer.Resource{
		Identifier: "https://MCP.example.com:443/mcp", Path: "/mcp", Name: "Example & Sons", Documentation: "https://docs.example.com/?a=1&b=2",
		Scopes: []string{"mcp:read", "mcp:write", "offline_access"}, Require: []string{"mcp:read"},
		Paths: []bearer.PathRule{{Pattern: "/mcp/admin*", Scopes: []string{"mcp:admin"}}},
	}
	guard := newGuard(t, guardTokens{}, resource)
	got := getMetadata(guard, http.MethodGet, metadataRoot+"/mcp")
	// The identifier and the issuer keep their bytes, scopes of rules stay
	// unadvertised, offline_access is never there.
	want := `{"resource":"https://MCP.example.com:443/mcp","authorization_servers":["https://auth.example.com"],` +
		`"scopes_supported":["mcp:read","mcp:write"],"bearer_methods_supported":["header"],` +
		`"resource_name":"Example & Sons","resource_documentation":"https://docs.example.com/?a=1&b=2"}`
	if diff := cmp.Diff(want, got.Body.String()); diff != "" {
		t.Error(diff)
	}
	if got.Code != 200 || got.Header().Get("Content-Type") != "application/json" || got.Header().Get("Access-Control-Allow-Origin") != "*" ||
		!strings.HasPrefix(got.Header().Get("Cache-Control"), "public, max-age=") {
		t.Errorf("status %d, header %v", got.Code, got.Header())
	}

	t.Run("own authorization servers, and nothing that is not set", func(t *testing.T) {
		guard := newGuard(t, guardTokens{}, bearer.Resource{Identifier: guardIdentifier, AuthorizationServers: []string{"https://a.example.com/t", "https://b.example.com"}})
		want := `{"resource":"https://mcp.example.com/mcp","authorization_servers":["https://a.example.com/t","https://b.example.com"],"bearer_methods_supported":["header"]}`
		if diff := cmp.Diff(want, getMetadata(guard, http.MethodGet, metadataRoot+"/mcp").Body.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMetadataPlaces(t *testing.T) {
	mcp := bearer.Resource{Identifier: "https://mcp.example.com/mcp", Path: "/mcp"}
	api := bearer.Resource{Identifier: "https://mcp.example.com/api/v1", Path: "/v1"}
	origin := bearer.Resource{Identifier: "https://mcp.example.com", Path: "/"}
	escaped := bearer.Resource{Identifier: "https://mcp.example.com/caf%C3%A9", Path: "/cafe"}
	preferred := api
	preferred.Default = true
	for _, test := range []struct {
		name      string
		resources []bearer.Resource
		want      map[string]string // path below the root → identifier, "" for 404
	}{
		{"one resource, also at the bare path", []bearer.Resource{mcp}, map[string]string{
			"/mcp": mcp.Identifier, "/mcp/": mcp.Identifier, "": mcp.Identifier, "/": mcp.Identifier,
			"/mcp//": "", "/mcp/x": "", "/MCP": "", "/other": "", "/mcp;": "", "//mcp": "",
		}},
		{"the path is that of the identifier", []bearer.Resource{mcp, api}, map[string]string{
			"/mcp": mcp.Identifier, "/api/v1": api.Identifier, "/v1": "", "": "", "/": "",
		}},
		{"the default one at the bare path", []bearer.Resource{mcp, preferred}, map[string]string{
			"/mcp": mcp.Identifier, "/api/v1": api.Identifier, "": api.Identifier,
		}},
		{"the bare origin owns the bare path", []bearer.Resource{origin, preferred}, map[string]string{
			"": origin.Identifier, "/": origin.Identifier, "/api/v1": api.Identifier,
		}},
		{"escapes in the identifier", []bearer.Resource{escaped, mcp}, map[string]string{"/café": escaped.Identifier}},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := newGuard(t, guardTokens{}, test.resources...)
			for below, want := range test.want {
				got := getMetadata(guard, http.MethodGet, metadataRoot+below)
				if want == "" {
					var body map[string]string
					if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil || got.Code != 404 || body["error"] == "" {
						t.Errorf("%q: %d %s, want 404 JSON", below, got.Code, got.Body)
					}
					continue
				}
				var document oauth.ProtectedResourceMetadata
				if err := json.Unmarshal(got.Body.Bytes(), &document); err != nil || got.Code != 200 || document.Resource != want {
					t.Errorf("%q: %d %s, want %q", below, got.Code, got.Body, want)
				}
			}
		})
	}
	for _, path := range []string{"/", "/mcp", "/.well-known/oauth-protected-resources", "/.well-known/oauth-authorization-server", "/x" + metadataRoot, ""} {
		if newGuard(t, guardTokens{}, mcp).Metadata(path) != nil {
			t.Errorf("%q is not the guard's", path)
		}
	}
}

// TestMetadataIsWhereTheChallengeSays: strict clients compare the resource of
// the document with what they asked for.
func TestMetadataIsWhereTheChallengeSays(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, guardResource(), bearer.Resource{Identifier: "https://mcp.example.com/two", Path: "/two"}))
	for _, identifier := range []string{guardIdentifier, "https://mcp.example.com/two"} {
		path := strings.TrimPrefix(identifier, "https://mcp.example.com")
		challenge := ask(t, server, "POST "+path+" HTTP/1.1").Challenge
		_, place, _ := strings.Cut(challenge, `resource_metadata="https://mcp.example.com`)
		res, body := sendRaw(t, server, "", "GET "+strings.TrimSuffix(place, `"`)+" HTTP/1.1")
		var document oauth.ProtectedResourceMetadata
		if err := json.Unmarshal([]byte(body), &document); err != nil || res.StatusCode != 200 || document.Resource != identifier {
			t.Errorf("%s: %d %s", challenge, res.StatusCode, body)
		}
	}
}

func TestMetadataMethods(t *testing.T) {
	guard := newGuard(t, guardTokens{}, guardResource())
	path := metadataRoot + "/mcp"

	got := getMetadata(guard, http.MethodHead, path)
	if got.Code != 200 || got.Body.Len() != 0 || got.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: %d, %d bytes, header %v", got.Code, got.Body.Len(), got.Header())
	}

	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, "BREW"} {
		got := getMetadata(guard, method, path)
		want := `{"error":"method_not_allowed","error_description":"The method ` + method + ` is not allowed for this endpoint"}`
		if got.Code != 405 || got.Header().Get("Allow") != "GET, HEAD, OPTIONS" || got.Body.String() != want || got.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s, header %v", method, got.Code, got.Body, got.Header())
		}
	}

	got = getMetadata(guard, http.MethodOptions, path, "Access-Control-Request-Headers", "mcp-protocol-version, x-any")
	want := http.Header{
		"Access-Control-Allow-Origin":  {"*"},
		"Access-Control-Allow-Methods": {"GET, HEAD, OPTIONS"},
		"Access-Control-Allow-Headers": {"mcp-protocol-version, x-any"},
		"Vary":                         {"Access-Control-Request-Headers"},
	}
	if diff := cmp.Diff(want, got.Header()); got.Code != 204 || diff != "" {
		t.Errorf("OPTIONS: %d %s", got.Code, diff)
	}

	for _, requested := range []string{"a\x00b", `a"b`, "a;b", strings.Repeat("a", 1025)} {
		got := getMetadata(guard, http.MethodOptions, path, "Access-Control-Request-Headers", requested)
		if allowed := got.Header().Get("Access-Control-Allow-Headers"); allowed != "" {
			t.Errorf("%.20q was reflected as %.20q", requested, allowed)
		}
	}
	if got := getMetadata(guard, http.MethodGet, metadataRoot+"/none"); got.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Error("a 404 cannot be read by browser clients")
	}
}

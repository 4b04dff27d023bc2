package bearer_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestIdentityHeadersOfClientsAreRemoved(t *testing.T) {
	header := http.Header{
		"X-Mcp-User": {"root"}, "X-Mcp-User-Email": {"root@example.com"}, "X-Mcp-User-Name": {"r"}, "X-Mcp-User-Groups": {"wheel"},
		"X-Mcp-Identity": {"forged"}, "x_mcp.identity": {"forged"}, "X-Mcp-Identity-2": {"forged"},
		"X-Mcp-Client": {"c"}, "X-Mcp-Scope": {"all"}, "X-Mcp-Scopes": {"all"},
		"X_mcp_user": {"root"}, "X_Mcp-User": {"root"}, "x-mcp-user": {"root"}, "X-MCP_SCOPE": {"all"}, "X.Mcp.User": {"root"}, "x_mcp_client_id": {"c"},
		"X-Mcp": {"keep"}, "X-Mcp-Use": {"keep"}, "Mcp-Session-Id": {"keep"}, "X-Mcp-Other": {"keep"}, "Ax-Mcp-User": {"keep"},
		"Connection": {"keep-alive, X-MCP-User", "x_mcp_scope,Upgrade", " x-Mcp-User-Email "},
		"Trailer":    {"X-Mcp-User, MCP-Session-Id", "mcp_session_id,Mcp-Name"},
	}
	request := &http.Request{Header: header, Trailer: http.Header{
		"X-Mcp-User": nil, "X_mcp_client": nil, "Mcp-Session-Id": nil, "Mcp_session.id": nil, "Mcp-Name": nil, "Mcp-Method": nil, "Mcp-Protocol-Version": nil, "Authorization": nil, "Checksum": nil,
	}}
	bearer.StripIdentity(request)
	want := http.Header{
		"X-Mcp": {"keep"}, "X-Mcp-Use": {"keep"}, "Mcp-Session-Id": {"keep"}, "X-Mcp-Other": {"keep"}, "Ax-Mcp-User": {"keep"},
		"Connection": {"keep-alive, Upgrade"},
	}
	if diff := cmp.Diff(want, request.Header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(http.Header{"Checksum": nil}, request.Trailer); diff != "" {
		t.Error(diff)
	}

	untouched := http.Header{"Connection": {"Upgrade , keep-alive"}, "Trailer": {"Checksum"}}
	request = &http.Request{Header: untouched.Clone()}
	bearer.StripIdentity(request)
	if diff := cmp.Diff(untouched, request.Header); diff != "" {
		t.Error(diff)
	}
}

// TestIdentityOnTheWire: header, announced and unannounced trailer, Connection,
// on guarded and on open paths.
func TestIdentityOnTheWire(t *testing.T) {
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	server := serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(map[string]any{"header": r.Header, "trailer": r.Trailer, "body": string(body)})
	})))
	for _, path := range []string{"/mcp", "/open"} {
		for _, announced := range []string{"Trailer: Checksum, X-MCP-User", "X-None: 1"} {
			_, answer := sendRaw(t, server, "4\r\nbody\r\n0\r\nX-Mcp-User: root\r\nx_mcp_scope: all\r\nChecksum: 1\r\n\r\n",
				"POST "+path+" HTTP/1.1", "Authorization: Bearer good", "Transfer-Encoding: chunked", announced,
				"X-MCP-User: root", "x_mcp_user: root", "X-MCP-Client-Id: x")
			if strings.Contains(strings.ToLower(answer), "x-mcp") || strings.Contains(strings.ToLower(answer), "x_mcp") || !strings.Contains(answer, `"body":"body"`) {
				t.Errorf("%s, %s: the handler saw %s", path, announced, answer)
			}
			if announced != "X-None: 1" && !strings.Contains(answer, `"trailer":{"Checksum":["1"]}`) {
				t.Errorf("%s: other trailers are lost: %s", path, answer)
			}
		}
	}
}

// TestIdentityUnannouncedTrailer: net/http merges such a trailer into the
// request that StripIdentity saw.
func TestIdentityUnannouncedTrailer(t *testing.T) {
	seen := make(chan http.Header, 1)
	server := serveHandler(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		bearer.StripIdentity(r)
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	}))
	sendRaw(t, server, "0\r\nX-Mcp-User: root\r\nOther: 1\r\n\r\n", "POST / HTTP/1.1", "Transfer-Encoding: chunked")
	if diff := cmp.Diff(http.Header{"Other": {"1"}}, <-seen); diff != "" {
		t.Error(diff)
	}
}

func TestIdentityHeaders(t *testing.T) {
	for _, test := range []struct {
		name   string
		info   oauth.TokenInfo
		fields bearer.IdentityFields
		want   http.Header
	}{
		{
			"user, client, scopes", guardToken("mcp:read", "mcp:write"),
			bearer.IdentityFields{},
			http.Header{"X-Mcp-User": {"alice"}, "X-Mcp-Client": {"client"}, "X-Mcp-Scope": {"mcp:read mcp:write"}},
		},
		{
			"what is unknown has no header, not even an old one",
			oauth.TokenInfo{ClientID: "c"},
			bearer.IdentityFields{Email: true, Name: true, Groups: true},
			http.Header{"X-Mcp-Client": {"c"}},
		},
		{
			"encoding",
			oauth.TokenInfo{UserID: "a b,c%d\r\nX: y\x00é", Scopes: []string{"a,b", "50%"}},
			bearer.IdentityFields{},
			http.Header{"X-Mcp-User": {"a%20b%2Cc%25d%0D%0AX:%20y%00%C3%A9"}, "X-Mcp-Scope": {"a%2Cb 50%25"}},
		},
		{
			"fields",
			oauth.TokenInfo{UserID: "1", Extra: map[string]any{"email": "a@example.com", "email_verified": true, "name": "Zoë A", "groups": []any{"x,y", "z", 3, ""}}},
			bearer.IdentityFields{Email: true, Name: true, Groups: true},
			http.Header{"X-Mcp-User": {"1"}, "X-Mcp-User-Email": {"a@example.com"}, "X-Mcp-User-Name": {"Zo%C3%AB%20A"}, "X-Mcp-User-Groups": {"x%2Cy,z"}},
		},
		{
			"fields not asked for",
			oauth.TokenInfo{UserID: "1", Extra: map[string]any{"email": "a@example.com", "name": "A", "groups": []any{"x"}}},
			bearer.IdentityFields{},
			http.Header{"X-Mcp-User": {"1"}},
		},
		{
			"mail that the issuer does not vouch for",
			oauth.TokenInfo{UserID: "1", Extra: map[string]any{"email": "a@example.com", "email_verified": false, "preferred_username": "al", "groups": "one"}},
			bearer.IdentityFields{Email: true, Name: true, Groups: true},
			http.Header{"X-Mcp-User": {"1"}, "X-Mcp-User-Name": {"al"}, "X-Mcp-User-Groups": {"one"}},
		},
		{
			"other spellings",
			oauth.TokenInfo{UserID: "1", Extra: map[string]any{"email": "a@example.com", "email_verified": "true", "groups": []string{"x", "y"}}},
			bearer.IdentityFields{Email: true, Groups: true},
			http.Header{"X-Mcp-User": {"1"}, "X-Mcp-User-Email": {"a@example.com"}, "X-Mcp-User-Groups": {"x,y"}},
		},
		{
			"claims of the wrong type",
			oauth.TokenInfo{UserID: "1", Extra: map[string]any{"email": 1, "name": []any{"x"}, "groups": map[string]any{"x": 1}}},
			bearer.IdentityFields{Email: true, Name: true, Groups: true},
			http.Header{"X-Mcp-User": {"1"}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := http.Header{"X-Mcp-User": {"old"}, "X-Mcp-Scope": {"old"}, "X-Mcp-User-Email": {"old"}}
			if err := bearer.SetIdentity(got, &test.info, test.fields); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIdentityTooLarge(t *testing.T) {
	fits := oauth.TokenInfo{UserID: strings.Repeat("a", 8<<10)}
	if err := bearer.SetIdentity(http.Header{}, &fits, bearer.IdentityFields{}); err != nil {
		t.Errorf("8 KiB: %v", err)
	}
	// One byte of three when encoded.
	large := oauth.TokenInfo{UserID: strings.Repeat("é", 2<<10), Scopes: []string{"x"}}
	got := http.Header{}
	if err := bearer.SetIdentity(got, &large, bearer.IdentityFields{}); !errors.Is(err, bearer.ErrIdentityTooLarge) || len(got) != 0 {
		t.Errorf("%v, header %v", err, got)
	}
}

func TestIdentityCostsNothingWhenThereIsNone(t *testing.T) {
	request := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader("{}"))
	request.Header = http.Header{"Accept": {"*/*"}, "Connection": {"keep-alive"}, "Content-Type": {"application/json"}, "X-Forwarded-For": {"::1"}, "Mcp-Session-Id": {"1"}}
	if allocs := testing.AllocsPerRun(100, func() { bearer.StripIdentity(request) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func BenchmarkStripIdentity(b *testing.B) {
	request := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader("{}"))
	request.Header = http.Header{"Accept": {"*/*"}, "Connection": {"keep-alive"}, "Content-Type": {"application/json"}, "X-Forwarded-For": {"::1"}, "Mcp-Session-Id": {"1"}}
	b.ReportAllocs()
	for b.Loop() {
		bearer.StripIdentity(request)
	}
}

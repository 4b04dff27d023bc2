package bearer_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// FuzzAuthorizationHeader: the verifier sees only what RFC 6750 §2.1 calls a
// token, and every other header is a refusal that says why.
func FuzzAuthorizationHeader(f *testing.F) {
	for _, seed := range []string{
		"", "Bearer x", "bearer x==", "Bearer  x", "Bearer x y", "Bearer", "Bearer a,b", "Basic a, Bearer b", "Bearer \x00", "Bearer \"x\"", "Bearer =",
	} {
		f.Add(seed)
	}
	credentials := regexp.MustCompile(`^[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/-]+=*)$`)
	f.Fuzz(func(t *testing.T, header string) {
		seen := ""
		verifier := bearer.VerifierFunc(func(_ context.Context, token string) (*oauth.TokenInfo, error) {
			seen = token
			info := guardToken("mcp:read")
			return &info, nil
		})
		request := httptest.NewRequest(http.MethodPost, "/mcp", nil)
		request.Header["Authorization"] = []string{header}
		recorder := httptest.NewRecorder()
		_, ok := newGuard(t, verifier, guardResource()).Check(recorder, request, nil)

		want := ""
		if match := credentials.FindStringSubmatch(header); match != nil && len(match[1]) <= 16<<10 {
			want = match[1]
		}
		if seen != want || ok != (want != "") {
			t.Errorf("%q: the verifier saw %q, want %q; went on %v", header, seen, want, ok)
		}
		challenged := recorder.Header().Get("WWW-Authenticate") != ""
		if !ok && !(recorder.Code == 401 && challenged || recorder.Code == 400 && !challenged) {
			t.Errorf("%q: status %d, challenge %q", header, recorder.Code, recorder.Header().Get("WWW-Authenticate"))
		}
	})
}

package proxyprovider_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recordingTransport keeps the requests that it passes on.
type recordingTransport struct {
	next http.RoundTripper
	mu   sync.Mutex
	seen []*http.Request
}

func (r *recordingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.seen = append(r.seen, req.Clone(req.Context()))
	r.mu.Unlock()
	return r.next.RoundTrip(req)
}

// SDK 7: nothing of the caller goes upstream, and every upstream call is made
// with the configured client (the SDK's fetch).
func TestSDKUpstreamCalls(t *testing.T) {
	u := newUpstream(t, nil)
	u.set(identityProvider(t))
	cfg := config(t, u)
	transport := &recordingTransport{next: cfg.Client.Transport}
	cfg.Client = &http.Client{Transport: transport}
	srv := newServer(t, newProxy(t, cfg), resource)
	call := func(path, contentType, body string) answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		for _, name := range []string{"Cookie", "User-Agent", "X-Forwarded-For", "Forwarded", "Origin", "Referer", "Traceparent", "X-Mcp-User"} {
			req.Header.Set(name, "the-callers")
		}
		resp, err := srv.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return answer{status: resp.StatusCode}
	}
	registered := srv.call(t, "POST", "/register", "application/json", `{"redirect_uris":["`+loopback+`"],"token_endpoint_auth_method":"client_secret_post"}`)
	id, _ := registered.m["client_id"].(string)
	asClient := "&client_id=" + id + "&client_secret=up-secret"
	call("/register", "application/json", `{"redirect_uris":["`+loopback+`"]}`)
	got := srv.call(t, "POST", "/token", formType, "grant_type=authorization_code&code=c0de&code_verifier="+verifier+"&redirect_uri="+loopback+"&resource="+resource+asClient)
	refresh, _ := got.m["refresh_token"].(string)
	call("/token", formType, "grant_type=authorization_code&code=c0de&code_verifier="+verifier+asClient)
	call("/token", formType, "grant_type=refresh_token&refresh_token="+refresh+asClient)
	call("/revoke", formType, "token="+refresh+asClient)

	var paths []string
	for _, req := range transport.seen {
		paths = append(paths, req.URL.Path)
		for name, values := range req.Header {
			if strings.Contains(strings.Join(values, " "), "the-callers") {
				t.Errorf("%s went upstream with %s", name, req.URL.Path)
			}
		}
		if n := len(req.Header); n > 3 {
			t.Errorf("%s: headers %v", req.URL.Path, req.Header)
		}
	}
	want := []string{"/register", "/register", "/token", "/token", "/token", "/revoke"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("calls with the configured client (-want +got):\n%s", diff)
	}
}

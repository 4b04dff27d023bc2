package authclient_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// TestDPoP: the token request and each request to the server have a fresh proof
// for their method and URL, and the token goes with the scheme DPoP.
func TestDPoP(t *testing.T) {
	t.Parallel()
	s := newDPoPServer(t)
	u, _ := newBoundUser(t, authclient.DPoPOptions{})
	client := s.client(t, u)
	for _, to := range []string{s.mcpURL(), s.mcpURL() + "?a=b#c"} {
		if status, err := proved(t, client, to); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d, %v", to, status, err)
		}
	}
	if s.served != 2 || s.jkt != u.Thumbprint() {
		t.Errorf("%d requests served, key %s; want 2, %s", s.served, s.jkt, u.Thumbprint())
	}
	if got := query(t, s.to("/authorize")[0].Query).Get("dpop_jkt"); got != u.Thumbprint() {
		t.Errorf("dpop_jkt = %q", got)
	}
}

// TestDPoPNonces: a nonce that one of the servers asks for is used at once, and
// until it gives another; the user is not asked again.
func TestDPoPNonces(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		token, resource string
		rotate          bool
		requests        int // to /mcp, of which two are served
	}{
		{"of the authorization server", "as-1", "", false, 3},
		{"of the MCP server", "", "rs-1", false, 4},
		{"of both, the same for one origin", "one", "one", false, 3},
		{"of both, each its own", "as-1", "rs-1", false, 4},
		{"new in each answer", "", "first", true, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newDPoPServer(t)
			s.tokenNonce, s.resourceNonce, s.rotate = test.token, test.resource, test.rotate
			u, _ := newBoundUser(t, authclient.DPoPOptions{})
			client := s.client(t, u)
			for range 2 {
				if status, err := proved(t, client, s.mcpURL()); err != nil || status != http.StatusOK {
					t.Fatalf("%d, %v", status, err)
				}
			}
			if n := len(s.to("/mcp")); s.served != 2 || n != test.requests {
				t.Errorf("%d of %d requests served, want 2 of %d", s.served, n, test.requests)
			}
			if n := len(s.to("/authorize")); n != 1 {
				t.Errorf("%d authorizations", n)
			}
		})
	}
}

// TestDPoPNonceFlood: a server that is never content is asked twice, and nonces
// of many servers, or huge ones, are not kept.
func TestDPoPNonceFlood(t *testing.T) {
	t.Parallel()
	t.Run("at the token endpoint", func(t *testing.T) {
		t.Parallel()
		s := newDPoPServer(t)
		n := 0
		s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.Header().Set("DPoP-Nonce", fmt.Sprintf("nonce-%d", n))
			sendJSON(w, http.StatusBadRequest, map[string]any{"error": "use_dpop_nonce"})
		})
		u, _ := newBoundUser(t, authclient.DPoPOptions{})
		if status, err := proved(t, s.client(t, u), s.mcpURL()); err == nil {
			t.Errorf("status %d", status)
		}
		if n != 2 {
			t.Errorf("%d token requests, want 2", n)
		}
	})
	t.Run("at the MCP server", func(t *testing.T) {
		t.Parallel()
		s := newDPoPServer(t)
		s.handle("/mcp", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("DPoP-Nonce", fmt.Sprintf("nonce-%d", len(s.to("/mcp"))))
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		u, _ := newBoundUser(t, authclient.DPoPOptions{})
		if status, err := proved(t, s.client(t, u), s.mcpURL()); err == nil {
			t.Errorf("status %d", status)
		}
		if n := len(s.to("/mcp")); n > 5 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("in memory", func(t *testing.T) {
		t.Parallel()
		d, err := authclient.NewDPoP(authclient.DPoPOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			answer := authclient.ProofAnswer{
				URL:    &url.URL{Scheme: "https", Host: fmt.Sprintf("h%d.example", i), Path: "/mcp"},
				Status: http.StatusUnauthorized, Code: "use_dpop_nonce",
				Header: http.Header{"Dpop-Nonce": {fmt.Sprint("n", i)}},
			}
			if !d.ProofAnswered(t.Context(), answer) {
				t.Fatal("the nonce is not used")
			}
		}
		if n := d.KeptNonces(); n > 16 {
			t.Errorf("%d nonces are kept", n)
		}
	})
	for name, nonce := range map[string][]string{
		"none":               nil,
		"empty":              {""},
		"two":                {"a", "b"},
		"huge":               {strings.Repeat("n", 513)},
		"with a quote":       {`a"b`},
		"with a space":       {"a b"},
		"with other letters": {"ä"},
	} {
		d, err := authclient.NewDPoP(authclient.DPoPOptions{})
		if err != nil {
			t.Fatal(err)
		}
		again := d.ProofAnswered(t.Context(), authclient.ProofAnswer{
			URL: &url.URL{Scheme: "https", Host: "h.example"}, Status: 401, Code: "use_dpop_nonce", Header: http.Header{"Dpop-Nonce": nonce},
		})
		if again || d.KeptNonces() != 0 {
			t.Errorf("a nonce that is %s counts", name)
		}
	}
}

// TestDPoPNonceInOtherAnswers: a nonce beside another answer is for the next
// request; only the servers' own refusals for lack of one repeat a request.
func TestDPoPNonceInOtherAnswers(t *testing.T) {
	t.Parallel()
	d, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		status int
		code   string
		again  bool
	}{
		{http.StatusOK, "", false},
		{http.StatusUnauthorized, "invalid_token", false},
		{http.StatusBadRequest, "invalid_grant", false},
		{http.StatusForbidden, "use_dpop_nonce", false},
		{http.StatusOK, "use_dpop_nonce", false},
		{http.StatusBadRequest, "use_dpop_nonce", true},
		{http.StatusUnauthorized, "use_dpop_nonce", true},
	} {
		nonce := fmt.Sprintf("%d-%s", test.status, test.code)
		again := d.ProofAnswered(t.Context(), authclient.ProofAnswer{
			URL: &url.URL{Scheme: "https", Host: "h.example"}, Status: test.status, Code: test.code, Header: http.Header{"Dpop-Nonce": {nonce}},
		})
		if again != test.again {
			t.Errorf("%s: again is %t", nonce, again)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://h.example/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.ProveTokenRequest(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		if p, err := readProof(r, "https://h.example/", ""); err != nil || p.Nonce != nonce {
			t.Errorf("the next proof has the nonce %q, want %q; %v", p.Nonce, nonce, err)
		}
	}
}

// TestDPoPDowngrade: tokens that are not bound are refused before they are kept,
// unless the caller allows them; then they go as Bearer without a proof.
func TestDPoPDowngrade(t *testing.T) {
	t.Parallel()
	t.Run("is refused", func(t *testing.T) {
		t.Parallel()
		s := newDPoPServer(t)
		s.TokenType = "Bearer"
		u, store := newBoundUser(t, authclient.DPoPOptions{})
		if _, err := proved(t, s.client(t, u), s.mcpURL()); !errors.Is(err, authclient.ErrNotBound) {
			t.Errorf("err = %v", err)
		}
		if tokens, err := store.Tokens(t.Context(), ""); tokens != nil || err != nil {
			t.Errorf("kept: %+v, %v", tokens, err)
		}
	})
	t.Run("is allowed", func(t *testing.T) {
		t.Parallel()
		s := newDPoPServer(t)
		s.TokenType = "Bearer"
		u, _ := newBoundUser(t, authclient.DPoPOptions{AllowBearer: true})
		if status, err := proved(t, s.client(t, u), s.mcpURL()); err != nil || status != http.StatusOK {
			t.Fatalf("%d, %v", status, err)
		}
		requests := s.to("/mcp")
		if last := requests[len(requests)-1].Header; last.Get("DPoP") != "" || !strings.HasPrefix(last.Get("Authorization"), "Bearer ") {
			t.Errorf("header: %v", last)
		}
	})
	t.Run("a server that takes other algorithms", func(t *testing.T) {
		t.Parallel()
		s := newDPoPServer(t)
		s.set("dpop_signing_alg_values_supported", []string{"PS256"})
		u, _ := newBoundUser(t, authclient.DPoPOptions{})
		if _, err := proved(t, s.client(t, u), s.mcpURL()); !errors.Is(err, authclient.ErrIncompatible) {
			t.Errorf("err = %v", err)
		}
		if q := query(t, s.to("/authorize")[0].Query); q.Has("dpop_jkt") {
			t.Error("dpop_jkt was sent")
		}
		if n := len(s.to("/token")); n != 0 {
			t.Errorf("%d token requests", n)
		}
	})
	t.Run("a token from before is replaced", func(t *testing.T) {
		t.Parallel()
		for _, refresh := range []string{"", "old-refresh"} {
			s := newDPoPServer(t)
			u, store := newBoundUser(t, authclient.DPoPOptions{})
			s.saved(t, store, "old", refresh)
			s.accept("old", true)
			if status, err := proved(t, s.client(t, u), s.mcpURL()); err != nil || status != http.StatusOK {
				t.Errorf("%d, %v", status, err)
			}
			for _, r := range s.to("/mcp") {
				if strings.Contains(r.Header.Get("Authorization"), "old") {
					t.Error("the old token was sent")
				}
			}
			if logins := len(s.to("/authorize")); logins != 1 && refresh == "" || logins != 0 && refresh != "" {
				t.Errorf("with refresh token %q: %d logins", refresh, logins)
			}
		}
	})
}

// TestDPoPProofIsForOneOrigin: a request that goes elsewhere carries neither
// token nor proof, and a proof names the origin that it is for.
func TestDPoPProofIsForOneOrigin(t *testing.T) {
	t.Parallel()
	s, other := newDPoPServer(t), newScripted(t)
	u, _ := newBoundUser(t, authclient.DPoPOptions{})
	client := s.client(t, u)
	if status, err := proved(t, client, s.mcpURL()); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	other.handle("/mcp", func(http.ResponseWriter, *http.Request) {})
	if status, err := proved(t, client, other.mcpURL()); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	if h := other.to("/mcp")[0].Header; h.Get("DPoP") != "" || h.Get("Authorization") != "" {
		t.Errorf("the other origin got %v", h)
	}
	// A stolen proof does not open another server.
	stolen := s.to("/mcp")[1]
	r := &http.Request{Method: http.MethodPost, Header: stolen.Header}
	token := strings.TrimPrefix(stolen.Header.Get("Authorization"), "DPoP ")
	if _, err := readProof(r, other.mcpURL(), token); err == nil || !strings.Contains(err.Error(), "htu") {
		t.Errorf("err = %v", err)
	}
}

// TestDPoPURL: htu is the URL without query and fragment, in canonical form.
func TestDPoPURL(t *testing.T) {
	t.Parallel()
	d, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"https://mcp.example.com":                      "https://mcp.example.com/",
		"HTTPS://MCP.example.com:443/a/b?c=d#e":        "https://mcp.example.com/a/b",
		"http://localhost:8080/a%2Fb/":                 "http://localhost:8080/a%2Fb/",
		"https://user:password@mcp.example.com/secret": "https://mcp.example.com/secret",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, from, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.ProveTokenRequest(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := readProof(r, want, ""); err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
}

// TestDPoPRefreshAfterRestart: with the key from a file the refresh token of a
// public client is of use to the next process.
func TestDPoPRefreshAfterRestart(t *testing.T) {
	t.Parallel()
	s := newDPoPServer(t)
	path := filepath.Join(t.TempDir(), "dpop.pem")
	var store *authclient.MemoryStore
	for run := range 2 {
		key, err := authclient.OpenSigningKey(path)
		if err != nil {
			t.Fatal(err)
		}
		u, own := newBoundUser(t, authclient.DPoPOptions{Key: key})
		if store != nil { // what a file store would bring
			tokens, _ := store.Tokens(t.Context(), "")
			client, _ := store.ClientInformation(t.Context(), "")
			if err := errors.Join(own.SaveTokens(t.Context(), tokens), own.SaveClientInformation(t.Context(), client)); err != nil {
				t.Fatal(err)
			}
			s.accept(tokens.AccessToken, false)
		}
		store = own
		if status, err := proved(t, s.client(t, u), s.mcpURL()); err != nil || status != http.StatusOK {
			t.Fatalf("run %d: %d, %v", run, status, err)
		}
		if s.jkt != u.Thumbprint() {
			t.Errorf("run %d: another key", run)
		}
	}
	calls := s.to("/token")
	if len(calls) != 2 || calls[1].Form.Get("grant_type") != "refresh_token" {
		t.Errorf("token requests: %v", calls)
	}
}

// TestDPoPWithClientAssertion: the request that is repeated with a nonce has a
// new client assertion, for the first may have been used up.
func TestDPoPWithClientAssertion(t *testing.T) {
	t.Parallel()
	s := newDPoPServer(t)
	s.tokenNonce = "as-1"
	private, err := authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{
		ClientID: "id", Key: authclient.SigningKey{Signer: newECKey(t)}, ExpectedIssuer: s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	bound, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := struct {
		*authclient.PrivateKeyJWT
		*authclient.DPoP
	}{private, bound}
	if _, err := s.auth(t, p); err != nil {
		t.Fatal(err)
	}
	calls := s.to("/token")
	if len(calls) != 2 || calls[0].Form.Get("client_assertion") == calls[1].Form.Get("client_assertion") {
		t.Errorf("%d token requests, with the same assertion", len(calls))
	}
}

// TestDPoPConcurrently is for the race detector.
func TestDPoPConcurrently(t *testing.T) {
	t.Parallel()
	s := newDPoPServer(t)
	s.tokenNonce, s.resourceNonce = "as", "rs"
	u, _ := newBoundUser(t, authclient.DPoPOptions{})
	client := s.client(t, u)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if status, err := proved(t, client, s.mcpURL()); err != nil || status != http.StatusOK {
				t.Errorf("%d, %v", status, err)
			}
		})
	}
	wg.Wait()
	if s.served != 20 || len(s.to("/authorize")) != 1 {
		t.Errorf("%d served, %d authorizations", s.served, len(s.to("/authorize")))
	}
}

// TestDPoPKeys: only a key that every server takes.
func TestDPoPKeys(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "ES384", "EdDSA"} {
		if _, err := authclient.NewDPoP(authclient.DPoPOptions{Key: authclient.SigningKey{Signer: newKey(t, alg)}}); err == nil || !strings.Contains(err.Error(), "P-256") {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

package authserver_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// A client goes through the whole flow with a document as its id, on a port
// that the document does not name.
func TestDocumentFlow(t *testing.T) {
	s := newClientsSite(t)
	s.web.put(documentURL, page{body: document(t, "redirect_uris", []string{"http://localhost/callback"})})
	const redirect = "http://localhost:54321/callback"
	code := s.code("client_id", documentURL, "redirect_uri", redirect)
	if got := s.web.hitsOf(documentURL); got != 1 {
		t.Errorf("%d fetches", got)
	}
	// The vendor's site goes down: the token endpoint does not need it.
	s.web.put(documentURL, page{status: http.StatusInternalServerError})
	s.clock.advance(25 * time.Hour)
	a := s.postForm("/token", redemption(code, "client_id", documentURL, "redirect_uri", redirect))
	if a.Status != http.StatusOK {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	var tokens oauth.Tokens
	if err := json.Unmarshal([]byte(a.Body), &tokens); err != nil {
		t.Fatal(err)
	}
	for path, form := range map[string]string{
		"/token":  "grant_type=refresh_token&client_id=" + url.QueryEscape(documentURL) + "&refresh_token=" + tokens.RefreshToken,
		"/revoke": "client_id=" + url.QueryEscape(documentURL) + "&token=" + tokens.AccessToken,
	} {
		if a := s.postForm(path, form); a.Status != http.StatusOK {
			t.Errorf("%s: status %d: %s", path, a.Status, a.Body)
		}
	}
	if got := s.web.hitsOf(documentURL); got != 1 {
		t.Errorf("%d fetches, the token endpoint must not fetch for a public client", got)
	}
}

func TestDocumentMetadata(t *testing.T) {
	with, without := newClientsSite(t), newSite(t)
	m := with.server.Metadata()
	if !m.ClientIDMetadataDocumentSupported {
		t.Error("client_id_metadata_document_supported is not set")
	}
	if diff := cmp.Diff([]string{"client_secret_basic", "client_secret_post", "none", "private_key_jwt"}, m.TokenEndpointAuthMethodsSupported); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"RS256", "ES256", "EdDSA"}, m.TokenEndpointAuthSigningAlgValuesSupported); diff != "" {
		t.Error(diff)
	}
	if got := string(m.Extra["revocation_endpoint_auth_signing_alg_values_supported"]); got != `["RS256","ES256","EdDSA"]` {
		t.Error(got)
	}
	m = without.server.Metadata()
	if m.ClientIDMetadataDocumentSupported || len(m.TokenEndpointAuthMethodsSupported) != 3 || m.TokenEndpointAuthSigningAlgValuesSupported != nil || m.Extra != nil {
		t.Errorf("a store without documents advertises them: %+v", m)
	}
}

// What a stranger names inside the network is never connected to.
func TestDocumentSSRF(t *testing.T) {
	var hits int
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits++
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(document(t)))
	}))
	defer inside.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(inside.URL, "http://"), ":")
	s := newClientsSite(t, func(_ *authserver.ClientsConfig, d *authserver.DocumentsConfig) { d.Client = nil })
	for _, id := range []string{
		inside.URL + "/c", "https://127.0.0.1:" + port + "/c", "https://localhost:" + port + "/c", "https://127.0.0.1/c",
		"https://[::1]/c", "https://[::ffff:127.0.0.1]/c", "https://0.0.0.0/c", "https://2130706433/c", "https://0x7f.1/c",
		"https://169.254.169.254/latest/meta-data", "https://[fe80::1]/c", "https://10.0.0.1/c", "https://100.100.100.200/c",
		"https://[64:ff9b::7f00:1]/c", "https://[2002:7f00:1::]/c", "https://localhost/c",
	} {
		a := s.do("GET", "/authorize?"+authorization("client_id", id), "")
		if code, description := a.oauthError(t); a.Status != http.StatusBadRequest || code != "invalid_client" {
			t.Errorf("%s: %d %s: %s", id, a.Status, code, description)
		}
	}
	if hits != 0 {
		t.Errorf("%d requests reached the inside", hits)
	}
}

// private_document_origins lifts the check of the address for that origin, not
// for others that its documents name.
func TestDocumentPrivateOrigins(t *testing.T) {
	var served string
	var keyHits int
	mux := http.NewServeMux()
	inside := httptest.NewServer(mux)
	defer inside.Close()
	mux.HandleFunc("/c", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(served))
	})
	mux.HandleFunc("/keys", func(http.ResponseWriter, *http.Request) { keyHits++ })
	id := inside.URL + "/c"
	get := func(origins ...string) (*authserver.Document, error) {
		d, err := authserver.NewDocuments(authserver.DocumentsConfig{PrivateOrigins: origins})
		if err != nil {
			t.Fatal(err)
		}
		return d.Get(t.Context(), id)
	}
	served = document(t, "client_id", id)
	if doc, err := get(inside.URL); err != nil || doc.Client.ClientID != id {
		t.Errorf("listed: %v", err)
	}
	if _, err := get("http://127.0.0.1:1"); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("another origin listed: %v", err)
	}
	if _, err := authserver.NewDocuments(authserver.DocumentsConfig{PrivateOrigins: []string{"http://inside.example"}}); err == nil {
		t.Error("http on another host than loopback is accepted")
	}
	// A stranger's document names keys on the exempt origin.
	w := newWeb(t)
	d := newDocuments(t, w, time.Now, func(c *authserver.DocumentsConfig) { c.PrivateOrigins = []string{"https://inside.example"} })
	w.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "https://inside.example/keys")})
	if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("keys on the exempt origin: %v", err)
	}
	own := "https://inside.example/c"
	w.put(own, page{body: document(t, "client_id", own, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "https://inside.example/keys")})
	if _, err := d.Get(t.Context(), own); err != nil {
		t.Errorf("keys on its own origin: %v", err)
	}
	if keyHits != 0 {
		t.Error("the keys were fetched without an assertion")
	}
}

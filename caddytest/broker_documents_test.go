package caddytest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// documentHost serves client ID metadata documents on a loopback origin.
type documentHost struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]func(http.ResponseWriter)
	asked map[string]int
}

func newDocumentHost(t *testing.T) *documentHost {
	t.Helper()
	h := &documentHost{files: make(map[string]func(http.ResponseWriter)), asked: make(map[string]int)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked[r.URL.Path]++
		serve := h.files[r.URL.Path]
		h.mu.Unlock()
		if serve == nil {
			http.NotFound(w, r)
			return
		}
		serve(w)
	}))
	t.Cleanup(h.Close)
	return h
}

// put publishes a document of a public client, changed by fn, and returns its
// URL.
func (h *documentHost) put(path string, fn func(map[string]any)) (clientID string) {
	clientID = h.URL + path
	document := map[string]any{
		"client_id": clientID, "client_name": "Documented", "redirect_uris": []string{testRedirect},
		"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none",
	}
	if fn != nil {
		fn(document)
	}
	h.serve(path, func(w http.ResponseWriter) { answerJSON(w, http.StatusOK, document) })
	return clientID
}

func (h *documentHost) serve(path string, fn func(http.ResponseWriter)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[path] = fn
}

func (h *documentHost) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[path]
}

// loadDocuments loads a broker with local accounts that trusts the hosts.
func loadDocuments(t *testing.T, hosts ...*documentHost) *caddyInstance {
	t.Helper()
	var origins []string
	for _, h := range hosts {
		origins = append(origins, h.URL)
	}
	settings := ""
	if len(origins) > 0 {
		settings = "registration {\nprivate_document_origins " + strings.Join(origins, " ") + "\n}"
	}
	c := newCaddy(t)
	site := fmt.Sprintf(accountsSite, hash(t, alicePassword), hash(t, "battery staple"), settings, newBackend(t).addr())
	if err := c.load(memoryStore, site); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBrokerMetadataDocument: a client that is known by its document alone signs
// in, refreshes, and is fetched once.
func TestBrokerMetadataDocument(t *testing.T) {
	h := newDocumentHost(t)
	c := loadDocuments(t, h)
	id := h.put("/client.json", nil)
	b := newBrowser(t)
	b.mustStay(b.open(c.Origin+authorizeTarget(id, "s1")), http.StatusOK)
	if !strings.Contains(b.page, "Documented") {
		t.Errorf("the consent page does not name the client:\n%s", b.page)
	}
	tokens := c.mustExchange(id, b.signIn(c.Origin+authorizeTarget(id, "s1"), aliceName, alicePassword))
	if status := c.uses(tokens); status != 200 {
		t.Errorf("use: %d", status)
	}
	if resp, answer := c.refresh(id, tokens["refresh_token"]); resp.StatusCode != 200 {
		t.Errorf("refresh: %d %v", resp.StatusCode, answer)
	}
	if n := h.count("/client.json"); n != 1 {
		t.Errorf("the document was fetched %d times", n)
	}
}

// assertion signs one of a client (RFC 7523 §3), its claims changed by those
// given.
func assertion(t *testing.T, key *ecdsa.PrivateKey, clientID, audience string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{
		"iss": clientID, "sub": clientID, "aud": audience, "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	for name, value := range claims {
		all[name] = value
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, all).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestBrokerPrivateKeyJWT: a document that offers nothing but private_key_jwt
// is held to it, at the code and at every refresh.
func TestBrokerPrivateKeyJWT(t *testing.T) {
	h := newDocumentHost(t)
	c := loadDocuments(t, h)
	key, other := newKey(t), newKey(t)
	h.serve("/keys", func(w http.ResponseWriter) {
		(&scriptedIDP{key: key}).keys(w, nil)
	})
	id := h.put("/client.json", func(document map[string]any) {
		document["token_endpoint_auth_method"] = "private_key_jwt"
		document["jwks_uri"] = h.URL + "/keys"
	})
	answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s1"), aliceName, alicePassword)
	redeem := func(form url.Values, assertion string) (*http.Response, map[string]any) {
		t.Helper()
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
		return c.token(form)
	}
	code := func() url.Values {
		form := codeForm(id)
		form.Set("code", answer.Get("code"))
		return form
	}
	used := assertion(t, key, id, c.Origin, jwt.MapClaims{"jti": "once"})
	if resp, answer := redeem(url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {"nothing"}}, used); answer["error"] != "invalid_grant" {
		t.Fatalf("a good assertion with a bad token: %d %v", resp.StatusCode, answer)
	}
	for name, bad := range map[string]string{
		"used before":         used,
		"another key":         assertion(t, other, id, c.Origin, nil),
		"another audience":    assertion(t, key, id, "https://other.example", nil),
		"another subject":     assertion(t, key, id, c.Origin, jwt.MapClaims{"sub": h.URL + "/other.json"}),
		"expired":             assertion(t, key, id, c.Origin, jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}),
		"valid for too long":  assertion(t, key, id, c.Origin, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}),
		"without jti":         assertion(t, key, id, c.Origin, jwt.MapClaims{"jti": ""}),
		"no JWT":              "no.jwt",
		"signed with nothing": unsigned(t, id, c.Origin),
	} {
		if resp, answer := redeem(code(), bad); resp.StatusCode != 401 || answer["error"] != "invalid_client" {
			t.Errorf("%s: %d %v", name, resp.StatusCode, answer)
		}
	}
	// Who does not authenticate at all is not asked to: the document is not
	// fetched for that, and the grant wants more (SECURITY §3).
	if resp, answer := c.token(code()); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("no assertion: %d %v", resp.StatusCode, answer)
	}
	resp, tokens := redeem(code(), assertion(t, key, id, c.Origin, nil))
	if resp.StatusCode != 200 || c.uses(tokens) != 200 {
		t.Fatalf("tokens: %d %v", resp.StatusCode, tokens)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}}
	if resp, answer := c.token(refresh); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("refresh without an assertion: %d %v", resp.StatusCode, answer)
	}
	if resp, answer := redeem(refresh, assertion(t, key, id, c.Origin+"/token", nil)); resp.StatusCode != 200 {
		t.Errorf("refresh: %d %v", resp.StatusCode, answer)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// unsigned is an assertion with alg none.
func unsigned(t *testing.T, clientID, audience string) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{
		"iss": clientID, "sub": clientID, "aud": audience, "jti": "x", "exp": time.Now().Add(time.Minute).Unix(),
	}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestBrokerDocumentsThatAreRefused: no consent page, no redirect, and an error
// that tells the client's developer what is wrong.
func TestBrokerDocumentsThatAreRefused(t *testing.T) {
	h := newDocumentHost(t)
	c := loadDocuments(t, h)
	h.serve("/moved.json", func(w http.ResponseWriter) {
		w.Header().Set("Location", h.URL+"/good.json")
		w.WriteHeader(http.StatusFound)
	})
	h.serve("/page.json", func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		_ = json.NewEncoder(w).Encode(map[string]any{"client_id": h.URL + "/page.json", "client_name": "x", "redirect_uris": []string{testRedirect}})
	})
	h.serve("/broken.json", func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"client_id":`))
	})
	h.put("/good.json", nil)
	for name, row := range map[string]struct{ id, code, text string }{
		"no such document": {h.URL + "/absent.json", "invalid_client", "status 200"},
		"a redirect":       {h.URL + "/moved.json", "invalid_client", "status 200"},
		"not JSON by type": {h.URL + "/page.json", "invalid_client", "JSON"},
		"cut off":          {h.URL + "/broken.json", "invalid_client", ""},
		"another client_id": {
			h.put("/other.json", func(d map[string]any) { d["client_id"] = h.URL + "/good.json" }), "invalid_client", "client_id",
		},
		"too large":          {h.put("/large.json", func(d map[string]any) { d["x"] = strings.Repeat("a", 11<<10) }), "invalid_client", "large"},
		"a shared secret":    {h.put("/secret.json", func(d map[string]any) { d["client_secret"] = "s3cret" }), "invalid_client", "client_secret"},
		"a secret's method":  {h.put("/basic.json", func(d map[string]any) { d["token_endpoint_auth_method"] = "client_secret_basic" }), "invalid_client", "secret"},
		"mutual TLS":         {h.put("/mtls.json", func(d map[string]any) { d["token_endpoint_auth_method"] = "tls_client_auth" }), "invalid_client", "private_key_jwt"},
		"keys without a key": {h.put("/keyless.json", func(d map[string]any) { d["token_endpoint_auth_method"] = "private_key_jwt" }), "invalid_client", "jwks"},
		"another redirect URI": {
			h.put("/elsewhere.json", func(d map[string]any) { d["redirect_uris"] = []string{"https://client.example/other"} }), "invalid_request", "redirect_uri",
		},
		"no name":       {h.put("/nameless.json", func(d map[string]any) { delete(d, "client_name") }), "invalid_client", "client_name"},
		"not listed":    {"http://127.0.0.1:1/client.json", "invalid_client", "https"},
		"a fragment":    {h.URL + "/good.json#x", "invalid_client", "fragment"},
		"a dot segment": {h.URL + "/a/../good.json", "invalid_client", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := c.send("GET", authorizeTarget(row.id, "s"), nil, "")
			var answer struct {
				Error       string `json:"error"`
				Description string `json:"error_description"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Error != row.code || !strings.Contains(answer.Description, row.text) || resp.Header.Get("Location") != "" {
				t.Errorf("%d %s, want %s with %q", resp.StatusCode, body, row.code, row.text)
			}
		})
	}
	b := newBrowser(t)
	b.mustStay(b.open(c.Origin+authorizeTarget(h.URL+"/other.json", "s")), http.StatusBadRequest)
	if strings.Contains(b.page, "<form") {
		t.Errorf("the page has a form:\n%s", b.page)
	}
}

// TestBrokerSSRF: no URL of a client makes this server open a connection to a
// private address, and none of an image makes it open any.
func TestBrokerSSRF(t *testing.T) {
	h := newDocumentHost(t)
	c := loadDocuments(t, h)
	addr, connections := newListener(t)
	_, port, _ := strings.Cut(addr, ":")
	for _, host := range []string{
		"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
		"[64:ff9b::7f00:1]", "127.0.0.1.nip.invalid", "localhost.", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1",
	} {
		for _, scheme := range []string{"https", "http"} {
			id := scheme + "://" + host + ":" + port + "/client.json"
			resp, body := c.send("GET", authorizeTarget(id, "s"), nil, "")
			if resp.StatusCode != 400 && resp.StatusCode != 503 || !strings.Contains(body, `"error"`) {
				t.Errorf("client_id %s: %d %s", id, resp.StatusCode, body)
			}
		}
	}
	sign := newKey(t)
	for name, change := range map[string]func(map[string]any){
		"/jwks-http.json":  func(d map[string]any) { d["jwks_uri"] = "http://" + addr + "/keys" },
		"/jwks-https.json": func(d map[string]any) { d["jwks_uri"] = "https://" + addr + "/keys" },
		"/jwks-name.json":  func(d map[string]any) { d["jwks_uri"] = "https://localhost:" + port + "/keys" },
		"/jwks-v6.json":    func(d map[string]any) { d["jwks_uri"] = "https://[::ffff:127.0.0.1]:" + port + "/keys" },
	} {
		id := h.put(name, func(d map[string]any) {
			d["token_endpoint_auth_method"] = "private_key_jwt"
			change(d)
		})
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {"x"}}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion(t, sign, id, c.Origin, nil))
		if resp, answer := c.token(form); resp.StatusCode == 200 || answer["error"] == "invalid_grant" {
			t.Errorf("%s: %d %v", name, resp.StatusCode, answer)
		}
	}
	picture := "http://" + addr + "/logo.png"
	documented := h.put("/logo.json", func(d map[string]any) { d["logo_uri"] = picture; d["client_uri"] = "http://" + addr })
	_, text := c.send("POST", "/register", http.Header{"Content-Type": {"application/json"}},
		fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none","logo_uri":%q,"client_uri":%q,"policy_uri":%q}`, testRedirect, picture, "http://"+addr, picture))
	var registered struct {
		ClientID string `json:"client_id"`
	}
	if err := json.Unmarshal([]byte(text), &registered); err != nil || registered.ClientID == "" {
		t.Fatalf("registration: %s", text)
	}
	for _, id := range []string{documented, registered.ClientID} {
		b := newBrowser(t)
		b.mustStay(b.open(c.Origin+authorizeTarget(id, "s")), http.StatusOK)
		if strings.Contains(b.page, "logo.png") {
			t.Errorf("the page loads the client's picture:\n%s", b.page)
		}
	}
	if n := connections(); n != 0 {
		t.Errorf("%d connections were made to a private address", n)
	}
}

package idp_test

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/examples/devidp/idp"
)

const (
	redirectURI = "http://127.0.0.1:5555/callback"
	resource    = "http://localhost:8080/mcp"
	verifier    = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// testIDP is a running provider with a clock that stands still.
type testIDP struct {
	*testing.T
	issuer string
	now    time.Time
	http   http.Client
}

func start(t *testing.T) *testIDP {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	idpt := &testIDP{
		T:      t,
		issuer: "http://" + ts.Listener.Addr().String(),
		now:    time.Now().Truncate(time.Second),
		http: http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
	provider, err := idp.New(idp.Options{Issuer: idpt.issuer, Audience: resource, Now: func() time.Time { return idpt.now }})
	if err != nil {
		t.Fatal(err)
	}
	ts.Config.Handler = provider
	ts.Start()
	t.Cleanup(ts.Close)
	return idpt
}

// do sends a request and decodes a JSON answer, if it is one.
func (i *testIDP) do(req *http.Request) (*http.Response, map[string]any) {
	i.Helper()
	resp, err := i.http.Do(req)
	if err != nil {
		i.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		i.Fatal(err)
	}
	var v map[string]any
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(body, &v); err != nil {
			i.Fatalf("%s: %v", body, err)
		}
	}
	return resp, v
}

func (i *testIDP) get(path string) (*http.Response, map[string]any) {
	i.Helper()
	req, err := http.NewRequestWithContext(i.Context(), http.MethodGet, i.issuer+path, nil)
	if err != nil {
		i.Fatal(err)
	}
	return i.do(req)
}

func (i *testIDP) post(path, contentType, body string) (*http.Response, map[string]any) {
	i.Helper()
	req, err := http.NewRequestWithContext(i.Context(), http.MethodPost, i.issuer+path, strings.NewReader(body))
	if err != nil {
		i.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	return i.do(req)
}

func (i *testIDP) form(path string, v url.Values) (*http.Response, map[string]any) {
	i.Helper()
	return i.post(path, "application/x-www-form-urlencoded", v.Encode())
}

func (i *testIDP) register() string {
	i.Helper()
	resp, c := i.post("/register", "application/json", `{"client_name":"test","redirect_uris":["`+redirectURI+`"]}`)
	if resp.StatusCode != http.StatusCreated {
		i.Fatalf("register: %v %v", resp.Status, c)
	}
	return c["client_id"].(string)
}

func authorizeQuery(clientID string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type":         {"code"},
		"client_id":             {clientID},
		"redirect_uri":          {redirectURI},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
		"resource":              {resource},
		"scope":                 {"mcp:read mcp:write"},
		"state":                 {"s1"},
	}
}

// signIn clicks, and returns the parameters that the client gets.
func (i *testIDP) signIn(q url.Values) url.Values {
	i.Helper()
	resp, body := i.form("/authorize?"+q.Encode(), url.Values{"user": {"alice"}})
	if resp.StatusCode != http.StatusSeeOther {
		i.Fatalf("authorize: %v %v", resp.Status, body)
	}
	u, err := resp.Location()
	if err != nil {
		i.Fatal(err)
	}
	return u.Query()
}

func codeForm(clientID, code string) url.Values {
	return url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {clientID},
		"code":          {code},
		"redirect_uri":  {redirectURI},
		"code_verifier": {verifier},
	}
}

func refreshForm(clientID string, token any) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {token.(string)}}
}

// tokens runs the whole flow.
func (i *testIDP) tokens(clientID string) map[string]any {
	i.Helper()
	resp, tokens := i.form("/token", codeForm(clientID, i.signIn(authorizeQuery(clientID)).Get("code")))
	if resp.StatusCode != http.StatusOK {
		i.Fatalf("token: %v %v", resp.Status, tokens)
	}
	return tokens
}

func (i *testIDP) wantError(code string, resp *http.Response, body map[string]any) {
	i.Helper()
	if resp.StatusCode < 400 || body["error"] != code {
		i.Errorf("answer %v %v, want error %s", resp.Status, body, code)
	}
}

// publicKey reads the signing key as a verifier would.
func (i *testIDP) publicKey() *rsa.PublicKey {
	i.Helper()
	_, set := i.get("/jwks.json")
	key := set["keys"].([]any)[0].(map[string]any)
	number := func(name string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(key[name].(string))
		if err != nil {
			i.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	return &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
}

func TestMetadataIsTheSameInBothForms(t *testing.T) {
	i := start(t)
	_, oauth := i.get("/.well-known/oauth-authorization-server")
	_, oidc := i.get("/.well-known/openid-configuration")
	if diff := cmp.Diff(oauth, oidc); diff != "" {
		t.Errorf("documents differ:\n%s", diff)
	}
	if oauth["issuer"] != i.issuer || oauth["token_endpoint"] != i.issuer+"/token" {
		t.Errorf("metadata = %v, want issuer %s", oauth, i.issuer)
	}
}

func TestFlow(t *testing.T) {
	i := start(t)
	clientID := i.register()
	answer := i.signIn(authorizeQuery(clientID))
	if answer.Get("state") != "s1" || answer.Has("iss") {
		t.Errorf("authorization response = %v, want state s1 and no iss", answer)
	}
	_, tokens := i.form("/token", codeForm(clientID, answer.Get("code")))
	parsed, err := jwt.Parse(tokens["access_token"].(string), func(*jwt.Token) (any, error) { return i.publicKey(), nil },
		jwt.WithIssuer(i.issuer), jwt.WithAudience(resource), jwt.WithSubject("alice"), jwt.WithExpirationRequired())
	if err != nil {
		t.Fatal(err)
	}
	claims := parsed.Claims.(jwt.MapClaims)
	if parsed.Header["typ"] != "at+jwt" || claims["client_id"] != clientID || claims["scope"] != "mcp:read mcp:write" {
		t.Errorf("token %v %v, want at+jwt of the client with both scopes", parsed.Header, claims)
	}

	_, again := i.form("/token", refreshForm(clientID, tokens["refresh_token"]))
	if again["access_token"] == nil || again["refresh_token"] == tokens["refresh_token"] {
		t.Errorf("refresh = %v, want new tokens", again)
	}
	resp, body := i.form("/revoke", url.Values{"client_id": {clientID}, "token": {again["refresh_token"].(string)}})
	if resp.StatusCode != http.StatusOK {
		t.Errorf("revoke: %v %v", resp.Status, body)
	}
	resp, body = i.form("/token", refreshForm(clientID, again["refresh_token"]))
	i.wantError("invalid_grant", resp, body)
}

func TestOpenIDScopeBringsAnIDToken(t *testing.T) {
	i := start(t)
	clientID := i.register()
	q := authorizeQuery(clientID)
	q.Set("scope", "openid mcp:read")
	q.Set("nonce", "n1")
	_, tokens := i.form("/token", codeForm(clientID, i.signIn(q).Get("code")))
	parsed, err := jwt.Parse(tokens["id_token"].(string), func(*jwt.Token) (any, error) { return i.publicKey(), nil },
		jwt.WithIssuer(i.issuer), jwt.WithAudience(clientID), jwt.WithSubject("alice"))
	if err != nil {
		t.Fatal(err)
	}
	if nonce := parsed.Claims.(jwt.MapClaims)["nonce"]; nonce != "n1" {
		t.Errorf("nonce = %v, want n1", nonce)
	}
}

func TestSignInPageNamesTheClientAndEscapesIt(t *testing.T) {
	i := start(t)
	_, c := i.post("/register", "application/json", `{"client_name":"<b>x</b>","redirect_uris":["`+redirectURI+`"]}`)
	resp, err := i.http.Get(i.issuer + "/authorize?" + authorizeQuery(c["client_id"].(string)).Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"&lt;b&gt;x&lt;/b&gt;", "Sign in as alice", "development only"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	i := start(t)
	clientID := i.register()
	tests := map[string]struct {
		change map[string]string // parameter to value; "" removes it
		want   string
		stays  bool // the error is answered here and not redirected
	}{
		"an unknown client":                  {map[string]string{"client_id": "x"}, "invalid_client", true},
		"a redirect URI not registered":      {map[string]string{"redirect_uri": "http://127.0.0.1:5555/other"}, "invalid_request", true},
		"a look-alike of loopback":           {map[string]string{"redirect_uri": "http://127.0.0.1.example/callback"}, "invalid_request", true},
		"a port that is a userinfo":          {map[string]string{"redirect_uri": "http://127.0.0.1:5555@example.com/callback"}, "invalid_request", true},
		"no redirect URI":                    {map[string]string{"redirect_uri": ""}, "invalid_request", true},
		"another response type":              {map[string]string{"response_type": "token"}, "unsupported_response_type", false},
		"plain PKCE":                         {map[string]string{"code_challenge_method": "plain"}, "invalid_request", false},
		"no PKCE":                            {map[string]string{"code_challenge": ""}, "invalid_request", false},
		"a relative resource":                {map[string]string{"resource": "/mcp"}, "invalid_target", false},
		"a resource with a fragment":         {map[string]string{"resource": resource + "#x"}, "invalid_target", false},
		"a user that is not offered: cancel": {nil, "access_denied", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := &testIDP{T: t, issuer: i.issuer, http: i.http}
			q := authorizeQuery(clientID)
			for k, v := range tt.change {
				q.Set(k, v)
			}
			resp, body := i.form("/authorize?"+q.Encode(), url.Values{"deny": {"1"}})
			if tt.stays {
				i.wantError(tt.want, resp, body)
				return
			}
			u, err := resp.Location()
			if err != nil {
				t.Fatalf("%v %v: %v", resp.Status, body, err)
			}
			if got := u.Query(); got.Get("error") != tt.want || got.Get("state") != "s1" {
				t.Errorf("redirect with %v, want error %s and the state", got, tt.want)
			}
		})
	}
}

func TestLoopbackRedirectWithAnyPort(t *testing.T) {
	i := start(t)
	q := authorizeQuery(i.register())
	q.Set("redirect_uri", "http://127.0.0.1:6666/callback")
	if code := i.signIn(q).Get("code"); code == "" {
		t.Error("no code, want one: RFC 8252 §7.3")
	}
}

func TestRepeatedParameterIsRefused(t *testing.T) {
	i := start(t)
	q := authorizeQuery(i.register())
	q.Add("state", "s2")
	resp, body := i.get("/authorize?" + q.Encode())
	i.wantError("invalid_request", resp, body)
}

func TestTokenRefuses(t *testing.T) {
	i := start(t)
	clientID, other := i.register(), i.register()
	tests := map[string]struct {
		change map[string]string
		want   string
	}{
		"an unknown client":        {map[string]string{"client_id": "x"}, "invalid_client"},
		"the code of another":      {map[string]string{"client_id": other}, "invalid_grant"},
		"another redirect URI":     {map[string]string{"redirect_uri": "http://127.0.0.1:6666/callback"}, "invalid_grant"},
		"a wrong verifier":         {map[string]string{"code_verifier": strings.Repeat("x", 43)}, "invalid_grant"},
		"no verifier":              {map[string]string{"code_verifier": ""}, "invalid_grant"},
		"another resource":         {map[string]string{"resource": "http://localhost:1/"}, "invalid_target"},
		"an unknown grant type":    {map[string]string{"grant_type": "password"}, "unsupported_grant_type"},
		"a request without a type": {map[string]string{"grant_type": ""}, "invalid_request"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := &testIDP{T: t, issuer: i.issuer, http: i.http}
			f := codeForm(clientID, i.signIn(authorizeQuery(clientID)).Get("code"))
			for k, v := range tt.change {
				f.Set(k, v)
			}
			resp, body := i.form("/token", f)
			i.wantError(tt.want, resp, body)
		})
	}
}

func TestExpiry(t *testing.T) {
	i := start(t)
	clientID := i.register()
	code := i.signIn(authorizeQuery(clientID)).Get("code")
	tokens := i.tokens(clientID)
	i.now = i.now.Add(61 * time.Second)
	resp, body := i.form("/token", codeForm(clientID, code))
	i.wantError("invalid_grant", resp, body)
	i.now = i.now.Add(24 * time.Hour)
	resp, body = i.form("/token", refreshForm(clientID, tokens["refresh_token"]))
	i.wantError("invalid_grant", resp, body)
}

func TestReuseRevokesTheGrant(t *testing.T) {
	t.Run("of a code", func(t *testing.T) {
		i := start(t)
		clientID := i.register()
		f := codeForm(clientID, i.signIn(authorizeQuery(clientID)).Get("code"))
		_, tokens := i.form("/token", f)
		resp, body := i.form("/token", f)
		i.wantError("invalid_grant", resp, body)
		resp, body = i.form("/token", refreshForm(clientID, tokens["refresh_token"]))
		i.wantError("invalid_grant", resp, body)
	})
	t.Run("of a refresh token", func(t *testing.T) {
		i := start(t)
		clientID := i.register()
		tokens := i.tokens(clientID)
		_, second := i.form("/token", refreshForm(clientID, tokens["refresh_token"]))
		resp, body := i.form("/token", refreshForm(clientID, tokens["refresh_token"]))
		i.wantError("invalid_grant", resp, body)
		resp, body = i.form("/token", refreshForm(clientID, second["refresh_token"]))
		i.wantError("invalid_grant", resp, body)
	})
}

func TestRefreshScope(t *testing.T) {
	i := start(t)
	clientID := i.register()
	tokens := i.tokens(clientID)
	f := refreshForm(clientID, tokens["refresh_token"])
	f.Set("scope", "mcp:admin")
	resp, body := i.form("/token", f)
	i.wantError("invalid_scope", resp, body)
	f.Set("scope", "mcp:read")
	if _, got := i.form("/token", f); got["scope"] != "mcp:read" {
		t.Errorf("refresh = %v, want the narrower scope", got)
	}
}

func TestRevocationNeedsTheClient(t *testing.T) {
	i := start(t)
	clientID, other := i.register(), i.register()
	tokens := i.tokens(clientID)
	i.form("/revoke", url.Values{"client_id": {other}, "token": {tokens["refresh_token"].(string)}})
	if resp, body := i.form("/token", refreshForm(clientID, tokens["refresh_token"])); resp.StatusCode != http.StatusOK {
		t.Errorf("refresh: %v %v, want 200: another client must not revoke", resp.Status, body)
	}
}

func TestRegistration(t *testing.T) {
	i := start(t)
	tests := map[string]struct{ body, want string }{
		"https":                      {`{"redirect_uris":["https://app.example.com/cb"]}`, ""},
		"loopback":                   {`{"redirect_uris":["http://localhost/cb","http://[::1]:9/cb"]}`, ""},
		"the scheme of an app":       {`{"redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback"]}`, ""},
		"http elsewhere":             {`{"redirect_uris":["http://app.example.com/cb"]}`, "invalid_redirect_uri"},
		"javascript":                 {`{"redirect_uris":["javascript:alert(1)"]}`, "invalid_redirect_uri"},
		"upper-case javascript":      {`{"redirect_uris":["JavaScript:alert(1)"]}`, "invalid_redirect_uri"},
		"data":                       {`{"redirect_uris":["data:text/html,x"]}`, "invalid_redirect_uri"},
		"a fragment":                 {`{"redirect_uris":["https://app.example.com/cb#x"]}`, "invalid_redirect_uri"},
		"userinfo":                   {`{"redirect_uris":["https://a@app.example.com/cb"]}`, "invalid_redirect_uri"},
		"a relative URI":             {`{"redirect_uris":["/cb"]}`, "invalid_redirect_uri"},
		"one bad among good":         {`{"redirect_uris":["https://app.example.com/cb","file:///x"]}`, "invalid_redirect_uri"},
		"none":                       {`{}`, "invalid_redirect_uri"},
		"a body that is not JSON":    {`redirect_uris=x`, "invalid_client_metadata"},
		"a body of more than 64 KiB": {`{"client_name":"` + strings.Repeat("x", 70_000) + `"}`, "invalid_client_metadata"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := &testIDP{T: t, issuer: i.issuer, http: i.http}
			resp, body := i.post("/register", "application/json", tt.body)
			if tt.want != "" {
				i.wantError(tt.want, resp, body)
			} else if resp.StatusCode != http.StatusCreated || body["token_endpoint_auth_method"] != "none" {
				t.Errorf("answer %v %v, want 201 with a public client", resp.Status, body)
			}
		})
	}
}

func TestBrowserGuards(t *testing.T) {
	i := start(t)
	target := i.issuer + "/authorize?" + authorizeQuery(i.register()).Encode()
	t.Run("a click from another origin is refused", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("user=alice"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if resp, _ := i.do(req); resp.StatusCode != http.StatusForbidden {
			t.Errorf("status = %v, want 403", resp.Status)
		}
	})
	t.Run("another host name is refused", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		req.Host = "rebound.example"
		if resp, _ := i.do(req); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("status = %v, want 421", resp.Status)
		}
	})
}

func TestIssuerMustBeLoopback(t *testing.T) {
	for _, issuer := range []string{
		"", "localhost:9400", "https://localhost:9400", "http://idp.example.com",
		"http://127.0.0.1.example:1", "http://localhost:9400/", "http://a@localhost:1",
	} {
		if _, err := idp.New(idp.Options{Issuer: issuer}); err == nil {
			t.Errorf("New accepts issuer %q", issuer)
		}
	}
}

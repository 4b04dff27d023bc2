package proxyprovider_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

// answeringTransport answers without a network, for the speed of fuzzing.
type answeringTransport struct{ script http.HandlerFunc }

func (a *answeringTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.script(w, r)
	return w.Result(), nil
}

func fuzzProxy(f *testing.F) (proxyprovider.Proxy, *answeringTransport) {
	f.Helper()
	transport := &answeringTransport{}
	cfg := config(f, &fakeUpstream{Server: &httptest.Server{URL: "https://idp.example.com"}})
	cfg.Client = &http.Client{Transport: transport}
	return newProxy(f, cfg), transport
}

// FuzzTokenAnswer feeds token answers of all kinds: whatever the upstream says,
// a client gets tokens that are fit for it, or an OAuth error without the
// upstream's words.
func FuzzTokenAnswer(f *testing.F) {
	const canary = "CANARY"
	for _, body := range []string{
		`{"access_token":"at","token_type":"Bearer","expires_in":3600,"scope":"a","refresh_token":"rt","id_token":"id"}`,
		`{"access_token":"at","expires_in":"3600","scope":null}`,
		`{"error":"invalid_grant","error_description":"` + canary + `"}`,
		`{"access_token":"at","access_token":"bt"}`,
		`access_token=at&token_type=bearer&scope=`,
		`error=bad_verification_code&error_description=` + canary,
		`<html>` + canary, ``, `null`, `[]`,
	} {
		for _, status := range []uint16{200, 400, 401, 500, 302} {
			f.Add(status, "application/json", body)
			f.Add(status, formType, body)
		}
	}
	p, transport := fuzzProxy(f)
	c := client(f, p, "app")
	f.Fuzz(func(t *testing.T, status uint16, contentType, body string) {
		if status < 200 || status > 599 {
			return
		}
		transport.script = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(int(status))
			_, _ = w.Write([]byte(body))
		}
		tokens, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"})
		if err != nil {
			if strings.HasPrefix(code(err), "not an") || strings.Contains(seen(t, err), canary) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error %v, seen %s", err, seen(t, err))
			}
			return
		}
		if status >= 300 || tokens.AccessToken == "" || tokens.TokenType == "" || len(tokens.Extra) > 0 || strings.ContainsAny(tokens.AccessToken, "\r\n") {
			t.Errorf("tokens %+v with status %d", tokens, status)
		}
		if tokens.RefreshToken != "" && strings.Contains(body, tokens.RefreshToken) {
			t.Error("the refresh token was not wrapped")
		}
		if _, err := json.Marshal(tokens); err != nil {
			t.Error(err)
		}
	})
}

// FuzzOpenClientID opens ids of all kinds, and, sealed with the right key,
// contents of all kinds: never a client without an upstream id and an allowed
// redirect URI.
func FuzzOpenClientID(f *testing.F) {
	p, transport := fuzzProxy(f)
	transport.script = answersJSON(201, `{"client_id":"up-1","client_secret":"s","client_secret_expires_at":1950000000}`)
	good := register(f, p, asked("client_secret_post")).ClientID
	ring, err := keys()
	if err != nil {
		f.Fatal(err)
	}
	sealer := ring.Sealer(seal.PurposeProxyID, issuer)
	content, err := sealer.Open(good, time.Unix(1_900_000_000, 0), "https://idp.example.com/token")
	if err != nil {
		f.Fatalf("the id is sealed in another way than this test knows: %v", err)
	}
	f.Add(good, content)
	f.Add("", content[:len(content)-1])
	f.Add("app", append(content, 0))
	f.Add(strings.ToLower(good), []byte{1, 0, 0, 0, 0, 1, 'u', 0, 0, 0})
	f.Add("https://app.example.com/client.json", []byte("\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add(good+"A", []byte(nil))
	f.Add("x", []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x19https://app.example.com/c")) // no upstream id
	f.Fuzz(func(t *testing.T, id string, content []byte) {
		c, err := p.Clients().GetClient(t.Context(), id)
		// Other fuzzing processes have ids of their own from the same key.
		if _, openErr := sealer.Open(id, time.Unix(1_900_000_000, 0), "https://idp.example.com/token"); err == nil && id != "app" && openErr != nil {
			t.Errorf("GetClient(%q) = %v", id, c)
		}
		sealed, err := sealer.Seal(content, time.Time{}, "https://idp.example.com/token")
		if err != nil {
			return
		}
		c, err = p.Clients().GetClient(t.Context(), sealed)
		if err != nil {
			if code(err) != "invalid_client Unauthorized" {
				t.Errorf("GetClient: %v", err)
			}
			return
		}
		var policy oauth.RedirectPolicy
		for _, uri := range c.RedirectURIs {
			if err := policy.Check(uri, c.ApplicationType); err != nil {
				t.Error(err)
			}
		}
		location, err := url.Parse(authorize(t, p, sealed, authserver.AuthorizationParams{RedirectURI: c.RedirectURIs[0], CodeChallenge: "c"}))
		if err != nil || location.Query().Get("client_id") == "" {
			t.Errorf("Location %v, %v", location, err)
		}
	})
}

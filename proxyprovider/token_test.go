package proxyprovider_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

const formType = "application/x-www-form-urlencoded"

// TestTokenRequests: what goes upstream, in the SDK's order.
func TestTokenRequests(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at"}`))
	full := authserver.CodeExchange{Code: "c&de", Verifier: "v3rifier", RedirectURI: callback, Resource: resource}
	const tail = "&code_verifier=v3rifier&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&resource=https%3A%2F%2Fmcp.example.com%2Fmcp"
	rows := []struct {
		name   string
		client oauth.Client
		change func(*proxyprovider.ProxyConfig)
		x      authserver.CodeExchange
		want   request
	}{
		{
			"secret in the body, as the SDK", staticClient("app", "s3c/ret", ""), nil, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de&client_secret=s3c%2Fret" + tail},
		},
		{
			"the client's own method: post", staticClient("app", "s3c/ret", "client_secret_post"), nil, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de&client_secret=s3c%2Fret" + tail},
		},
		{
			// base64 of app%3A1:s3c%2Fret
			"the client's own method: basic, form-encoded", staticClient("app:1", "s3c/ret", "client_secret_basic"), nil, full,
			request{"POST", "/token", formType, "application/json", "Basic YXBwJTNBMTpzM2MlMkZyZXQ=", "grant_type=authorization_code&code=c%26de" + tail},
		},
		{
			"no secret", staticClient("app", "", ""), nil, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de" + tail},
		},
		{
			"no secret, whatever the operator says", staticClient("app", "", ""), func(c *proxyprovider.ProxyConfig) { c.ClientAuth = "basic" }, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de" + tail},
		},
		{
			"a public client keeps the operator's secret to itself", staticClient("app", "s3cret", "none"), nil, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de" + tail},
		},
		{
			// base64 of app:s3cret
			"a public client with the operator's secret", staticClient("app", "s3cret", "none"), func(c *proxyprovider.ProxyConfig) { c.ClientAuth = "basic" }, full,
			request{"POST", "/token", formType, "application/json", "Basic YXBwOnMzY3JldA==", "grant_type=authorization_code&code=c%26de" + tail},
		},
		{
			"the operator's method wins: post", staticClient("app", "s3cret", "client_secret_basic"), func(c *proxyprovider.ProxyConfig) { c.ClientAuth = "post" }, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de&client_secret=s3cret" + tail},
		},
		{
			"the operator's method wins: none", staticClient("app", "s3cret", "client_secret_basic"), func(c *proxyprovider.ProxyConfig) { c.ClientAuth = "none" }, full,
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de" + tail},
		},
		{
			"the token URL's query is kept", staticClient("app", "", ""), func(c *proxyprovider.ProxyConfig) { c.TokenURL += "?tenant=a%20b" }, full,
			request{"POST", "/token?tenant=a%20b", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c%26de" + tail},
		},
		{
			"an omitted redirect URI is the one that was sent to authorize", staticClient("app", "", ""), func(c *proxyprovider.ProxyConfig) { c.OmitResource = true },
			authserver.CodeExchange{Code: "c", Verifier: "v", Resource: resource},
			request{"POST", "/token", formType, "application/json", "", "grant_type=authorization_code&client_id=app&code=c&code_verifier=v&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := config(t, u)
			cfg.Clients = []oauth.Client{row.client}
			if row.change != nil {
				row.change(&cfg)
			}
			p := newProxy(t, cfg)
			if _, err := p.ExchangeCode(t.Context(), client(t, p, row.client.ClientID), row.x); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]request{row.want}, u.got()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefreshRequest(t *testing.T) {
	u := newUpstream(t, nil)
	cfg := config(t, u)
	cfg.DropScopes = []string{"offline_access"}
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	token := refreshToken(t, u, p, c, "upstream-rt")
	if strings.Contains(token, "upstream-rt") {
		t.Error("the client gets the upstream's refresh token")
	}
	x := authserver.RefreshExchange{RefreshToken: token, Scopes: []string{"a", "offline_access"}, Resource: resource}
	if _, err := p.ExchangeRefreshToken(t.Context(), c, x); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ExchangeRefreshToken(t.Context(), c, authserver.RefreshExchange{RefreshToken: token}); err != nil {
		t.Fatal(err)
	}
	const head = "grant_type=refresh_token&client_id=app&refresh_token=upstream-rt&client_secret=s3cret-of-app"
	want := []request{
		{"POST", "/token", formType, "application/json", "", head + "&scope=a&resource=https%3A%2F%2Fmcp.example.com%2Fmcp"},
		{"POST", "/token", formType, "application/json", "", head},
	}
	if diff := cmp.Diff(want, u.got()); diff != "" {
		t.Error(diff)
	}
}

// altered is the token with another character in the middle.
func altered(token string) string {
	i, c := len(token)/2, byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// TestRefreshTokenIsBound: only the client that got it can use it, and nothing
// goes upstream for anybody else.
func TestRefreshTokenIsBound(t *testing.T) {
	u := newUpstream(t, nil)
	cfg := config(t, u)
	cfg.Clients = append(cfg.Clients, staticClient("thief", "thief-secret", ""))
	p := newProxy(t, cfg)
	token := refreshToken(t, u, p, client(t, p, "app"), "upstream-rt")

	elsewhere := cfg
	elsewhere.Issuer = "https://other.example.com"
	otherUpstream := cfg
	otherUpstream.TokenURL += "2"
	otherKeys := cfg
	otherKeys.Keys = func() (*seal.Ring, error) { return seal.NewRing(seal.GenerateKey()) }
	rows := []struct {
		name   string
		p      proxyprovider.Proxy
		client string
		token  string
	}{
		{"stolen by another client", p, "thief", token},
		{"at another issuer", newProxy(t, elsewhere), "app", token},
		{"after a change of the upstream", newProxy(t, otherUpstream), "app", token},
		{"after the keys were dropped", newProxy(t, otherKeys), "app", token},
		{"altered", p, "app", altered(token)},
		{"truncated", p, "app", token[:len(token)-4]},
		{"the upstream's own", p, "app", "upstream-rt"},
		{"empty", p, "app", ""},
		{"huge", p, "app", strings.Repeat("A", 100_000)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := row.p.ExchangeRefreshToken(t.Context(), client(t, row.p, row.client), authserver.RefreshExchange{RefreshToken: row.token})
			if code(err) != "invalid_grant Bad Request" {
				t.Errorf("error %v", err)
			}
			if got := u.got(); len(got) > 0 {
				t.Errorf("the upstream was asked: %v", got)
			}
		})
	}
	if _, err := p.ExchangeRefreshToken(t.Context(), client(t, p, "app"), authserver.RefreshExchange{RefreshToken: token}); err != nil {
		t.Errorf("its own client: %v", err)
	}
}

// TestTokenAnswers: what a client gets for what the upstream answers.
func TestTokenAnswers(t *testing.T) {
	const json200 = "application/json; charset=utf-8"
	rows := []struct {
		name, contentType, body string
		want                    string // refresh_token is opened before the comparison
	}{
		{"as the RFC", json200, `{"access_token":"at","token_type":"Bearer","expires_in":3600,"scope":"a b"}`, `{"access_token":"at","token_type":"Bearer","expires_in":3600,"scope":"a b"}`},
		{"in the SDK's order", json200, `{"refresh_token":"rt","scope":"a","expires_in":1,"token_type":"bearer","id_token":"id","access_token":"at"}`, `{"access_token":"at","id_token":"id","token_type":"bearer","expires_in":1,"scope":"a","refresh_token":"rt"}`},
		{"unknown members stripped", json200, `{"access_token":"at","token_type":"Bearer","ext_expires_in":1,"session_state":"x","secret":{"a":[1]}}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"no token_type", json200, `{"access_token":"at"}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"null token_type", json200, `{"access_token":"at","token_type":null}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"null scope", json200, `{"access_token":"at","scope":null,"refresh_token":null,"id_token":null,"expires_in":null}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"empty refresh token", json200, `{"access_token":"at","refresh_token":""}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"expires_in as string", json200, `{"access_token":"at","expires_in":"3600"}`, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`},
		{"expires_in empty", json200, `{"access_token":"at","expires_in":""}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"expires_in 0 is not unknown", json200, `{"access_token":"at","expires_in":0}`, `{"access_token":"at","token_type":"Bearer","expires_in":0}`},
		{"expires_in with fraction", json200, `{"access_token":"at","expires_in":59.9}`, `{"access_token":"at","token_type":"Bearer","expires_in":59}`},
		{"error null", json200, `{"access_token":"at","error":null}`, `{"access_token":"at","token_type":"Bearer"}`},
		{"a form, as GitHub", formType + "; charset=utf-8", `access_token=at&expires_in=28800&refresh_token=rt&scope=repo%2Cuser&token_type=bearer`, `{"access_token":"at","token_type":"bearer","expires_in":28800,"scope":"repo,user","refresh_token":"rt"}`},
		{"a form with an empty scope", formType, `access_token=at&scope=&token_type=bearer`, `{"access_token":"at","token_type":"bearer"}`},
		{"JSON of another content type", "text/plain", ` {"access_token":"at"} `, `{"access_token":"at","token_type":"Bearer"}`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t, answers(200, row.contentType, row.body))
			p := newProxy(t, config(t, u))
			c := client(t, p, "app")
			tokens, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"})
			if err != nil {
				t.Fatal(err)
			}
			if tokens.RefreshToken != "" {
				u.got()
				u.set(answersJSON(200, `{"access_token":"at"}`))
				if _, err := p.ExchangeRefreshToken(t.Context(), c, authserver.RefreshExchange{RefreshToken: tokens.RefreshToken}); err != nil {
					t.Fatal(err)
				}
				if got := u.got(); !strings.Contains(got[0].Body, "&refresh_token=rt&") {
					t.Errorf("the refresh token inside is another: %s", got[0].Body)
				}
				tokens.RefreshToken = "rt"
			}
			got, err := json.Marshal(tokens)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != row.want {
				t.Errorf("\n got %s\nwant %s", got, row.want)
			}
		})
	}
}

// hostile are answers that no client can act on. Each is 503 within the budget,
// and none of the upstream's text is in it.
func hostile() map[string]http.HandlerFunc {
	const secret = "<script>leak</script>"
	rows := map[string]http.HandlerFunc{
		"HTML":             answers(200, "text/html", "<html>"+secret),
		"HTML with 400":    answers(400, "text/html", "<html>"+secret),
		"500":              answersJSON(500, `{"error":"invalid_grant","error_description":"`+secret+`"}`),
		"502 HTML":         answers(502, "text/html", secret),
		"503":              answersJSON(503, `{}`),
		"429":              answersJSON(429, `{"error":"invalid_grant"}`),
		"401 empty":        answers(401, "", ""),
		"400 without code": answersJSON(400, `{"message":"`+secret+`"}`),
		"400 error object": answersJSON(400, `{"error":{"code":"invalid_grant"}}`),
		"200 error object": answersJSON(200, `{"error":{"code":"x"},"access_token":"at"}`),
		"temporarily":      answersJSON(400, `{"error":"temporarily_unavailable","error_description":"`+secret+`"}`),
		"server_error":     answersJSON(400, `{"error":"server_error"}`),
		"empty":            answersJSON(200, ``),
		"null":             answersJSON(200, `null`),
		"array":            answersJSON(200, `[{"access_token":"at"}]`),
		"truncated JSON":   answersJSON(200, `{"access_token":"at"`),
		"duplicate member": answersJSON(200, `{"access_token":"at","access_token":"bt"}`),
		"two documents":    answersJSON(200, `{"access_token":"at"}{"access_token":"bt"}`),
		"deep nesting":     answersJSON(200, `{"access_token":"at","x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`),
		"not UTF-8":        answersJSON(200, "{\"access_token\":\"\xff\"}"),
		"no access token":  answersJSON(200, `{"token_type":"Bearer"}`),
		"empty token":      answersJSON(200, `{"access_token":""}`),
		"token of a type":  answersJSON(200, `{"access_token":17}`),
		"control in token": answersJSON(200, `{"access_token":"a\r\nb"}`),
		"expires_in true":  answersJSON(200, `{"access_token":"at","expires_in":true}`),
		"expires_in abc":   answersJSON(200, `{"access_token":"at","expires_in":"abc"}`),
		"expires_in below": answersJSON(200, `{"access_token":"at","expires_in":-1}`),
		"huge refresh":     answersJSON(200, `{"access_token":"at","refresh_token":"`+strings.Repeat("x", 70_000)+`"}`),
		"10 MB":            answersJSON(200, `{"access_token":"`+strings.Repeat("x", 10<<20)+`"}`),
		"form twice":       answers(200, formType, "access_token=a&access_token=b"),
		"malformed form":   answers(200, formType, "access_token=%zz"),
		"wrong type":       answers(200, "text/plain", "access_token=a"),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?x="+secret, http.StatusTemporaryRedirect)
		},
		"redirect with tokens": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			answersJSON(302, `{"access_token":"at"}`)(w, nil)
		},
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"reset in the body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			answersJSON(200, `{"access_token":"at"`)(w, nil)
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"hangs in the body": func(w http.ResponseWriter, r *http.Request) {
			answersJSON(200, `{"access`)(w, nil)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	}
	return rows
}

func TestHostileUpstream(t *testing.T) {
	for name, script := range hostile() {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, nil)
			p := newProxy(t, config(t, u))
			c := client(t, p, "app")
			token := refreshToken(t, u, p, c, "rt")
			u.set(script)
			short := func() context.Context {
				if !strings.HasPrefix(name, "hangs") {
					return t.Context()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				t.Cleanup(cancel)
				return ctx
			}
			_, exchanged := p.ExchangeCode(short(), c, authserver.CodeExchange{Code: "x"})
			_, refreshed := p.ExchangeRefreshToken(short(), c, authserver.RefreshExchange{RefreshToken: token})
			for what, err := range map[string]error{"exchange": exchanged, "refresh": refreshed} {
				if code(err) != "temporarily_unavailable Service Unavailable" {
					t.Errorf("%s: %v", what, err)
				}
				if s := seen(t, err); strings.Contains(s, "leak") || strings.Contains(s, "rt") && strings.Contains(s, "127.0.0.1") {
					t.Errorf("%s: the client sees %s", what, s)
				}
			}
			if got := u.got(); len(got) > 2 {
				t.Errorf("%d requests for two: %v", len(got), got)
			}
		})
	}
}

// TestRefusals: the upstream's errors keep their meaning and lose their text.
func TestRefusals(t *testing.T) {
	rows := []struct {
		upstream, want string
		level          string // of the line that is logged here; the rest is the Server's to log
	}{
		{"invalid_grant", "invalid_grant Bad Request", ""},
		{"invalid_scope", "invalid_scope Bad Request", ""},
		{"invalid_target", "invalid_target Bad Request", ""},
		{"invalid_request", "invalid_request Bad Request", ""},
		{"unauthorized_client", "unauthorized_client Bad Request", ""},
		{"unsupported_grant_type", "unsupported_grant_type Bad Request", ""},
		{"access_denied", "access_denied Bad Request", ""},
		{"bad_verification_code", "invalid_grant Bad Request", ""},
		{"bad_refresh_token", "invalid_grant Bad Request", ""},
		{"interaction_required", "invalid_grant Bad Request", ""},
		{"invalid_resource", "invalid_target Bad Request", ""},
		{"server_error", "temporarily_unavailable Service Unavailable", ""},
		{"invalid_client", "invalid_client Unauthorized", "ERROR"},
		{"incorrect_client_credentials", "invalid_client Unauthorized", "ERROR"},
		{"something_else", "something_else Bad Request", "ERROR"},
		{"not a code", "server_error Internal Server Error", "ERROR"},
	}
	const text = `\r\nSet-Cookie: a=b <script>alert(1)</script> \"quoted\" s3cret-of-app the-code the-verifier`
	for _, status := range []int{200, 400, 401, 403, 404} {
		for _, row := range rows {
			t.Run(http.StatusText(status)+" "+row.upstream, func(t *testing.T) {
				u := newUpstream(t, answersJSON(status, `{"error":"`+row.upstream+`","error_description":"`+text+strings.Repeat("x", 5000)+`"}`))
				var log logBuffer
				cfg := config(t, u)
				cfg.Logger = log.logger()
				p := newProxy(t, cfg)
				_, err := p.ExchangeCode(t.Context(), client(t, p, "app"), authserver.CodeExchange{Code: "the-code", Verifier: "the-verifier"})
				if code(err) != row.want {
					t.Errorf("error %v, want %s", err, row.want)
				}
				if s := seen(t, err); strings.Contains(s, "Set-Cookie") || strings.Contains(s, "alert") || strings.Contains(s, "xxx") {
					t.Errorf("the upstream's text is in %s", s)
				}
				line := log.String()
				switch {
				case row.level == "" && line != "":
					t.Errorf("logged here and returned: %s", line)
				case row.level == "":
					line = err.Error()
				case !strings.Contains(line, "level="+row.level) || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n"):
					t.Errorf("the operator reads %q", line)
				}
				line = strings.TrimSuffix(line, "\n")
				if !strings.Contains(line, row.upstream) || !strings.Contains(line, "alert(1)") {
					t.Errorf("the operator is not told what the upstream said: %s", line)
				}
				for _, secret := range []string{"s3cret-of-app", "the-code", "the-verifier", "\n", "\r"} {
					if strings.Contains(line, secret) {
						t.Errorf("%q is in what is logged", secret)
					}
				}
				if len(line) > 1000 {
					t.Errorf("%d bytes are logged", len(line))
				}
			})
		}
	}
}

// TestInvalidClientOfTheOperator: a public client cannot mend a secret that
// only the operator knows, and must not throw its registration away.
func TestInvalidClientOfTheOperator(t *testing.T) {
	u := newUpstream(t, answersJSON(401, `{"error":"invalid_client"}`))
	var log logBuffer
	cfg := config(t, u)
	cfg.Clients = []oauth.Client{staticClient("public", "s3cret", "none"), staticClient("bare", "", "")}
	cfg.ClientAuth, cfg.Logger = "basic", log.logger()
	p := newProxy(t, cfg)
	for i, id := range []string{"public", "bare"} {
		_, err := p.ExchangeCode(t.Context(), client(t, p, id), authserver.CodeExchange{Code: "x"})
		if code(err) != "invalid_client Unauthorized" {
			t.Errorf("%s: %v", id, err)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != i+1 {
			t.Errorf("%s: %d errors in the log: %s", id, n, log.String())
		}
	}
}

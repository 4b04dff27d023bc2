package bearer_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// newIntrospection returns a verifier with a cache, as a guard has it.
func newIntrospection(t testing.TB, i *issuer, c bearer.IntrospectionConfig) bearer.Verifier {
	t.Helper()
	if c.URL == "" && c.Discovery == nil {
		c.URL = i.URL + introspectionPath
	}
	if c.ClientID == "" {
		c.ClientID, c.ClientSecret = "rs", "secret"
	}
	c.Client = client(t)
	v, err := bearer.NewIntrospectionVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return remembering(t, v, bearer.TokenCacheConfig{Now: c.Now})
}

// introspects makes the endpoint answer with the object.
func (i *issuer) introspects(answer object) {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	i.answer(introspectionPath, 200, string(text))
}

func TestIntrospectionAsks(t *testing.T) {
	for _, test := range []struct {
		name, method, id, secret string
		authorization            string
		form                     map[string][]string
	}{
		{"basic by default", "", "rs", "secret", "rs:secret", map[string][]string{"token": {"a&b=c+d"}, "token_type_hint": {"access_token"}}},
		{"basic is form-encoded", "basic", "r:s", "p%w d+ü", "r%3As:p%25w+d%2B%C3%BC", map[string][]string{"token": {"a&b=c+d"}, "token_type_hint": {"access_token"}}},
		{"post", "post", "r:s", "p w", "", map[string][]string{"token": {"a&b=c+d"}, "token_type_hint": {"access_token"}, "client_id": {"r:s"}, "client_secret": {"p w"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			i.handle(introspectionPath, func(w http.ResponseWriter, r *http.Request) {
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(test.form, map[string][]string(r.PostForm)); diff != "" {
					t.Error(diff)
				}
				want := ""
				if test.authorization != "" {
					want = "Basic " + base64.StdEncoding.EncodeToString([]byte(test.authorization))
				}
				got := []string{r.Method, r.Header.Get("Accept"), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), r.URL.RawQuery}
				if diff := cmp.Diff([]string{"POST", "application/json", "application/x-www-form-urlencoded", want, ""}, got); diff != "" {
					t.Error(diff)
				}
				_, _ = w.Write([]byte(`{"active":true}`))
			})
			v := newIntrospection(t, i, bearer.IntrospectionConfig{AuthMethod: test.method, ClientID: test.id, ClientSecret: test.secret})
			if _, err := v.VerifyAccessToken(t.Context(), "a&b=c+d"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIntrospectionAccepts(t *testing.T) {
	i := newIssuer(t)
	for _, test := range []struct {
		name   string
		answer object
		want   oauth.TokenInfo
	}{
		{
			"everything",
			object{
				"active": true, "scope": "a  b", "client_id": "c", "username": "al", "token_type": "Bearer", "exp": 4000000000,
				"iat": 1, "nbf": 2, "sub": "alice", "aud": []string{"x", "y"}, "iss": i.URL, "jti": "j", "groups": []string{"g"},
			},
			oauth.TokenInfo{
				Token: "token", ClientID: "c", Scopes: []string{"a", "b"}, UserID: "alice", ExpiresAt: time.Unix(4000000060, 0), Leeway: time.Minute,
				Audience: []string{"x", "y"}, Issuer: i.URL,
				Extra: map[string]any{"username": "al", "iat": int64(1), "nbf": int64(2), "jti": "j", "groups": []any{"g"}},
			},
		},
		{"nothing but active", object{"active": true}, oauth.TokenInfo{Token: "token", Issuer: i.URL}},
		{"aud as string", object{"active": true, "aud": "x"}, oauth.TokenInfo{Token: "token", Issuer: i.URL, Audience: []string{"x"}}},
		{"bearer in lower case", object{"active": true, "token_type": "bearer"}, oauth.TokenInfo{Token: "token", Issuer: i.URL}},
		{"a user name alone, which is nobody's sub", object{"active": true, "username": "al"}, oauth.TokenInfo{Token: "token", Issuer: i.URL, UserID: "username:al", Extra: map[string]any{"username": "al"}}},
		{"sub is a number", object{"active": true, "sub": 12345678901}, oauth.TokenInfo{Token: "token", Issuer: i.URL, UserID: "12345678901"}},
		{"scp and cid (Okta)", object{"active": true, "scp": []string{"a", "b"}, "cid": "c"}, oauth.TokenInfo{Token: "token", Issuer: i.URL, Scopes: []string{"a", "b"}, ClientID: "c"}},
		{"scope before scp, azp before cid", object{"active": true, "scope": "a", "scp": "b", "azp": "c", "cid": "d"}, oauth.TokenInfo{Token: "token", Issuer: i.URL, Scopes: []string{"a"}, ClientID: "c", Extra: map[string]any{"scp": "b", "cid": "d"}}},
		{
			"null is absent",
			object{"active": true, "iss": nil, "sub": nil, "username": nil, "aud": nil, "scope": nil, "client_id": nil, "token_type": nil, "exp": nil, "nbf": nil, "iat": nil},
			oauth.TokenInfo{Token: "token", Issuer: i.URL},
		},
		{"token_use access_token (Hydra)", object{"active": true, "token_use": "access_token"}, oauth.TokenInfo{Token: "token", Issuer: i.URL, Extra: map[string]any{"token_use": "access_token"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.introspects(test.answer)
			v := newIntrospection(t, i, bearer.IntrospectionConfig{Issuer: i.URL})
			info, err := v.VerifyAccessToken(t.Context(), "token")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&test.want, info); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIntrospectionRefuses(t *testing.T) {
	i := newIssuer(t)
	now := time.Now().Unix()
	for _, test := range []struct{ name, answer, want string }{
		{"active false", `{"active":false}`, "Token is not active"},
		{"active false with an error code", `{"active":false,"error":"x"}`, "Token is not active"},
		{"active missing", `{"sub":"alice"}`, "Token is not active"},
		{"active in another case", `{"Active":true}`, "Token is not active"},
		{"expired", `{"active":true,"exp":1}`, "Token has expired"},
		{"exp 0", `{"active":true,"exp":0}`, "Token has expired"},
		{"exp is a string", `{"active":true,"exp":"4000000000"}`, "Token is malformed"},
		{"not valid yet", `{"active":true,"nbf":` + jsonInt(now+120) + `}`, "Token is not valid yet"},
		{"issued in the future", `{"active":true,"iat":` + jsonInt(now+120) + `}`, "Token is not valid yet"},
		{"other issuer", `{"active":true,"iss":"https://evil.example"}`, "Token was not issued by the expected"},
		{"DPoP", `{"active":true,"token_type":"DPoP"}`, "Token cannot be used as a Bearer token"},
		{"N_A", `{"active":true,"token_type":"N_A"}`, "Token cannot be used as a Bearer token"},
		{"refresh token by type", `{"active":true,"token_type":"refresh_token"}`, "Token cannot be used as a Bearer token"},
		{"bound to a key", `{"active":true,"token_type":"Bearer","cnf":{"jkt":"x"}}`, "Token is bound to a key"},
		{"refresh token (Hydra)", `{"active":true,"token_use":"refresh_token"}`, "Token is not an access token"},
		{"refresh token (Keycloak)", `{"active":true,"typ":"Refresh"}`, "Token is not an access token"},
		{"cnf is null", `{"active":true,"cnf":null}`, "Token is bound to a key"},
		{"sub is a fraction", `{"active":true,"sub":1.5}`, "Token is malformed"},
		{"sub is a list", `{"active":true,"sub":["x"]}`, "Token is malformed"},
		{"sub as that of a user name", `{"active":true,"sub":"username:al"}`, "Token is malformed"},
		{"scope is an object", `{"active":true,"scope":{}}`, "Token is malformed"},
		{"scope with a control character", `{"active":true,"scope":"a\u0000"}`, "Token is malformed"},
		{"scope beyond the limit", `{"active":true,"scope":"` + strings.Repeat("abc ", 2000) + `"}`, "Token is malformed"},
		{"aud holds a number", `{"active":true,"aud":["x",1]}`, "Token is malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.answer(introspectionPath, 200, test.answer)
			var lines logLines
			v := newIntrospection(t, i, bearer.IntrospectionConfig{Issuer: i.URL, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
			for range 2 {
				_, err := v.VerifyAccessToken(t.Context(), "token")
				wantError(t, err, oauth.ErrInvalidToken, test.want)
			}
			odd := strings.HasPrefix(test.name, "sub ") || strings.HasPrefix(test.name, "scope ") || strings.HasPrefix(test.name, "aud ")
			if n := strings.Count(lines.String(), "cannot be understood"); (n == 1) != odd {
				t.Errorf("logged: %s", lines.String())
			}
		})
	}
	before := i.count(introspectionPath)
	v := newIntrospection(t, i, bearer.IntrospectionConfig{})
	for _, token := range []string{"", strings.Repeat("x", 16<<10+1)} {
		_, err := v.VerifyAccessToken(t.Context(), token)
		wantError(t, err, oauth.ErrInvalidToken, "Token is malformed")
	}
	if i.count(introspectionPath) != before {
		t.Error("an absurd token was sent on")
	}
}

func jsonInt(n int64) string {
	text, _ := json.Marshal(n)
	return string(text)
}

// What is not an answer is no verdict on the token, and is not remembered.
func TestIntrospectionTrouble(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"500", answer(500, `{"active":true}`)},
		{"503", answer(503, ``)},
		{"404", answer(404, ``)},
		{"400", answer(400, `{"error":"invalid_request"}`)},
		{"401", answer(401, `{"error":"invalid_client"}`)},
		{"403", answer(403, ``)},
		{"204", answer(204, ``)},
		{"201", answer(201, `{"active":true}`)},
		{"redirect", answer(307, ``)},
		{"HTML", answer(200, `<html>`)},
		{"empty", answer(200, ``)},
		{"array", answer(200, `[{"active":true}]`)},
		{"null", answer(200, `null`)},
		{"active twice", answer(200, `{"active":false,"active":true}`)},
		{"active is a string", answer(200, `{"active":"true"}`)},
		{"active is 1", answer(200, `{"active":1}`)},
		{"active is null", answer(200, `{"active":null}`)},
		{"10 MB", answer(200, `{"active":true,"x":"`+strings.Repeat("x", 10<<20)+`"}`)},
		{"reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"a JWT answer (RFC 9701)", answer(200, `eyJhbGciOiJub25lIn0.eyJhY3RpdmUiOnRydWV9.`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			i.answer("/elsewhere", 200, `{"active":true}`)
			i.handle(introspectionPath, test.handler)
			v := newIntrospection(t, i, bearer.IntrospectionConfig{})
			_, err := v.VerifyAccessToken(t.Context(), "secret-token")
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "The token cannot be verified at the moment")
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds a secret: %v", err)
			}
			if i.count("/elsewhere") != 0 {
				t.Error("a redirect got the token")
			}
			i.introspects(object{"active": true})
			if _, err := v.VerifyAccessToken(t.Context(), "secret-token"); err != nil {
				t.Errorf("the trouble was remembered: %v", err)
			}
		})
	}
}

func TestIntrospectionThatHangsEndsWithTheCaller(t *testing.T) {
	i := newIssuer(t)
	i.hang(introspectionPath)
	v := newIntrospection(t, i, bearer.IntrospectionConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := v.VerifyAccessToken(ctx, "token")
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "The token cannot be verified")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestIntrospectionComplainsAboutItsCredentials(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   bool
	}{
		{401, ``, true},
		{403, ``, true},
		{400, `{"error":"invalid_client"}`, true},
		{400, `{"error":"invalid_request"}`, false},
		{500, ``, false},
	} {
		i := newIssuer(t)
		i.answer(introspectionPath, test.status, test.body)
		var c clock
		var lines logLines
		v := newIntrospection(t, i, bearer.IntrospectionConfig{Now: c.now, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
		for range 3 {
			_, err := v.VerifyAccessToken(t.Context(), "token")
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "")
		}
		want := 0
		if test.want {
			want = 1
		}
		if n := strings.Count(lines.String(), "level=ERROR"); n != want {
			t.Errorf("%d %s: %d lines, want %d", test.status, test.body, n, want)
		}
		c.advance(time.Minute)
		_, _ = v.VerifyAccessToken(t.Context(), "token")
		if n := strings.Count(lines.String(), "level=ERROR"); n != 2*want {
			t.Errorf("%d %s: %d lines after a minute, want %d", test.status, test.body, n, 2*want)
		}
		if strings.Contains(lines.String(), "secret=") || strings.Contains(lines.String(), "token\"") {
			t.Errorf("a secret was logged: %s", lines.String())
		}
	}
}

func TestIntrospectionCache(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	for _, test := range []struct {
		name   string
		answer object
		max    time.Duration
		// fresh is the last moment at which the answer is used, stale the first
		// at which the endpoint is asked again; 0 fresh: never used.
		fresh, stale time.Duration
	}{
		{"a good answer for 30 s", object{"active": true}, 0, 29 * time.Second, 31 * time.Second},
		{"30 s are the most", object{"active": true}, time.Hour, 29 * time.Second, 31 * time.Second},
		{"less by choice", object{"active": true}, 10 * time.Second, 9 * time.Second, 11 * time.Second},
		{"never beyond exp", object{"active": true, "exp": now.Unix() + 15}, 0, 12 * time.Second, 16 * time.Second},
		{"not when within the skew after exp", object{"active": true, "exp": now.Unix() - 15}, 0, 0, 0},
		{"not at all by choice", object{"active": true}, -1, 0, 0},
		{"a refusal for 5 s", object{"active": false}, 0, 4 * time.Second, 6 * time.Second},
		{"a refusal of ours for 5 s", object{"active": true, "cnf": object{}}, 0, 4 * time.Second, 6 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c clock
			i.introspects(test.answer)
			v := newIntrospection(t, i, bearer.IntrospectionConfig{Now: c.now, MaxCache: test.max})
			start := i.count(introspectionPath)
			asks := func(when string, want int) {
				t.Helper()
				_, _ = v.VerifyAccessToken(t.Context(), "token")
				if n := i.count(introspectionPath) - start; n != want {
					t.Errorf("%s: asked %d times, want %d", when, n, want)
				}
			}
			asks("first", 1)
			if test.fresh == 0 {
				asks("second", 2)
				return
			}
			c.advance(test.fresh)
			asks("while it is fresh", 1)
			c.advance(test.stale - test.fresh)
			asks("when it is stale", 2)
			_, _ = v.VerifyAccessToken(t.Context(), "token2")
			if n := i.count(introspectionPath) - start; n != 3 {
				t.Error("the answer for one token was used for another")
			}
		})
	}
}

func TestIntrospectionSeesARevocationAfterTheCache(t *testing.T) {
	i := newIssuer(t)
	var c clock
	v := newIntrospection(t, i, bearer.IntrospectionConfig{Now: c.now})
	i.introspects(object{"active": true})
	if _, err := v.VerifyAccessToken(t.Context(), "token"); err != nil {
		t.Fatal(err)
	}
	i.introspects(object{"active": false})
	c.advance(30 * time.Second)
	_, err := v.VerifyAccessToken(t.Context(), "token")
	wantError(t, err, oauth.ErrInvalidToken, "Token is not active")
	i.answer(introspectionPath, 500, "")
	c.advance(6 * time.Second)
	_, err = v.VerifyAccessToken(t.Context(), "token")
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "") // an old verdict is not used in an outage
}

func TestIntrospectionIsSharedAndLeftByCallersWhoseTimeIsOver(t *testing.T) {
	i := newIssuer(t)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	i.handle(introspectionPath, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(asked) })
		<-release
		_, _ = w.Write([]byte(`{"active":true,"sub":"alice"}`))
	})
	v := newIntrospection(t, i, bearer.IntrospectionConfig{})
	impatient, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := v.VerifyAccessToken(impatient, "token")
		gone <- err
	}()
	<-asked
	cancel()
	wantError(t, <-gone, oauth.ErrTemporarilyUnavailable, "") // whoever asked first may leave
	results := make(chan error, 20)
	for range cap(results) {
		go func() {
			_, err := v.VerifyAccessToken(t.Context(), "token")
			results <- err
		}()
	}
	close(release)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	// Two if nobody else had come when the first answer did.
	if n := i.count(introspectionPath); n > 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestIntrospectionByDiscovery(t *testing.T) {
	i := newIssuer(t)
	i.introspects(object{"active": true, "sub": "alice"})
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL})
	v := newIntrospection(t, i, bearer.IntrospectionConfig{Discovery: d})
	info, err := v.VerifyAccessToken(t.Context(), "token")
	if err != nil || info.Issuer != i.URL {
		t.Fatalf("got %v, %v", info, err)
	}

	i.answer(introspectionPath, 404, "")
	i.answer("/moved", 200, `{"active":true}`)
	i.answer(metadataPath, 200, i.metadata(object{"introspection_endpoint": i.URL + "/moved"}))
	if _, err := v.VerifyAccessToken(t.Context(), "token2"); err != nil {
		t.Errorf("after it moved: %v", err)
	}
}

func TestIntrospectionEndpointThatIsPublishedLater(t *testing.T) {
	for name, before := range map[string]any{
		"no introspection_endpoint": nil,
		"introspection_endpoint":    "/introspect",
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			i.introspects(object{"active": true, "sub": "alice"})
			i.answer(metadataPath, 200, i.metadata(object{"introspection_endpoint": before}))
			var c clock
			d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL, Now: c.now})
			v := newIntrospection(t, i, bearer.IntrospectionConfig{Discovery: d, Now: c.now})
			refused := func() {
				t.Helper()
				_, err := v.VerifyAccessToken(t.Context(), "token")
				wantError(t, err, oauth.ErrTemporarilyUnavailable, "")
				if !strings.Contains(err.Error(), name) {
					t.Errorf("the cause does not name it: %v", err)
				}
			}
			for range 3 {
				refused()
			}
			if n := i.count(metadataPath); n != 2 {
				t.Errorf("the metadata were asked for %d times, want 2", n)
			}
			c.advance(10 * time.Second)
			i.answer(metadataPath, 500, "")
			refused()
			c.advance(10 * time.Second)
			i.answer(metadataPath, 200, i.metadata(nil))
			if _, err := v.VerifyAccessToken(t.Context(), "token"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewIntrospectionVerifierRefuses(t *testing.T) {
	for _, test := range []struct {
		want   string
		config bearer.IntrospectionConfig
	}{
		{"URL or discovery", bearer.IntrospectionConfig{ClientID: "a", ClientSecret: "b"}},
		{"client id", bearer.IntrospectionConfig{URL: "https://a.example/i", ClientSecret: "b"}},
		{"client secret", bearer.IntrospectionConfig{URL: "https://a.example/i", ClientID: "a"}},
		{"absolute", bearer.IntrospectionConfig{URL: "a.example/i", ClientID: "a", ClientSecret: "b"}},
		{"basic or post", bearer.IntrospectionConfig{URL: "https://a.example/i", ClientID: "a", ClientSecret: "b", AuthMethod: "none"}},
	} {
		if _, err := bearer.NewIntrospectionVerifier(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error with %q", test.config, err, test.want)
		}
	}
}

func FuzzIntrospectionAnswer(f *testing.F) {
	for _, answer := range []string{
		`{"active":true,"exp":4000000000,"aud":["x"],"scope":"a b","sub":"alice"}`,
		`{"active":false}`, `{"active":true,"exp":1e999}`, `{"active":true,"nbf":-1e300,"aud":[[]]}`, `[]`, `null`, `{`,
		`{"active":true,"cnf":null}`, `{"active":true,"iss":""}`,
	} {
		f.Add(answer)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(answer))
		})}}
		v, err := bearer.NewIntrospectionVerifier(bearer.IntrospectionConfig{
			URL: "https://idp.example/introspect", ClientID: "a", ClientSecret: "b", Issuer: "https://idp.example", Client: c,
		})
		if err != nil {
			t.Fatal(err)
		}
		info, err := v.VerifyAccessToken(t.Context(), "token")
		if err != nil {
			if !errors.Is(err, oauth.ErrInvalidToken) && !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Fatalf("%q: %v", answer, err)
			}
			return
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(answer), &object); err != nil || object["active"] != true {
			t.Fatalf("%q was accepted", answer)
		}
		if info.Issuer != "https://idp.example" || info.Token != "token" {
			t.Fatalf("%q: %+v", answer, info)
		}
		for _, scope := range info.Scopes {
			if !oauth.ValidScope(scope) {
				t.Fatalf("%q: scope %q", answer, scope)
			}
		}
	})
}

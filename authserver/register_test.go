package authserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// register registers and returns the members of the answer.
func (s *site) register(document string) map[string]any {
	s.t.Helper()
	a := s.postJSON("/register", document)
	if a.Status != 201 || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
		s.t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(a.Body), &members); err != nil {
		s.t.Fatal(err)
	}
	return members
}

// SDK 4: credentials of a new client.
func TestRegisterCredentials(t *testing.T) {
	for name, row := range map[string]struct {
		method  string // of token_endpoint_auth_method, "" for none
		expiry  time.Duration
		secret  bool
		expires any
	}{
		"no method":           {"", 0, true, 0.0},
		"client_secret_basic": {"client_secret_basic", 0, true, 0.0},
		"client_secret_post":  {"client_secret_post", time.Hour, true, 1_800_003_600.0},
		"none":                {"none", time.Hour, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *authserver.Config, _ *scripted) { c.ClientSecretExpiry = row.expiry })
			document := `{"redirect_uris":["https://app.example.com/cb"]`
			if row.method != "" {
				document += `,"token_endpoint_auth_method":"` + row.method + `"`
			}
			got := s.register(document + `}`)
			id, _ := got["client_id"].(string)
			secret, _ := got["client_secret"].(string)
			if !regexp.MustCompile(`^[\w-]{22,}$`).MatchString(id) {
				t.Errorf("client_id %q", id)
			}
			if row.secret != regexp.MustCompile(`^[\w-]{43}$`).MatchString(secret) {
				t.Errorf("client_secret %q", secret)
			}
			if got["client_id_issued_at"] != 1_800_000_000.0 || got["client_secret_expires_at"] != row.expires {
				t.Errorf("%v", got)
			}
			// A method that was not sent is not made up: either is accepted.
			if method, there := got["token_endpoint_auth_method"]; there != (row.method != "") || there && method != row.method {
				t.Errorf("token_endpoint_auth_method %v", method)
			}
			if other := s.register(document + `}`); other["client_id"] == id {
				t.Error("the same client_id twice")
			}
		})
	}
}

func TestRegisteredClientCanAuthorize(t *testing.T) {
	s := newSite(t)
	got := s.register(`{"redirect_uris":["https://app.example.com/cb"]}`)
	id, secret := got["client_id"].(string), got["client_secret"].(string)
	code := s.code("client_id", id)
	if a := s.postForm("/token", redemption(code, "client_id", ""), "Authorization", basic(id, secret)); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// SDK 4: all metadata comes back; what is not known or not ours to take is
// dropped; null and empty members are left out (row 34 of clients and IdPs).
func TestRegisterEchoesMetadata(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.NoClientIDGeneration = false })
	got := s.register(`{
		"redirect_uris": ["https://app.example.com/cb", "https://app.example.com/cb", "http://localhost:1234/cb"],
		"token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token", "implicit"],
		"response_types": ["code", "id_token"], "client_name": "My \u202eApp ", "client_uri": "https://app.example.com/#top",
		"logo_uri": "", "tos_uri": "", "policy_uri": "https://app.example.com/policy", "jwks_uri": null, "scope": " a  b a",
		"contacts": ["a@example.com"], "software_id": "x", "software_version": "1", "software_statement": "e30.e30.",
		"application_type": "native", "client_id": "mine", "client_secret": "mine", "client_secret_expires_at": 1,
		"issuer": "https://evil.example", "unknown": {"a": 1}}`)
	delete(got, "client_id_issued_at")
	if id := got["client_id"]; id == "mine" || id == "" {
		t.Errorf("client_id %v", id)
	}
	delete(got, "client_id")
	want := map[string]any{
		"redirect_uris":              []any{"https://app.example.com/cb", "http://localhost:1234/cb"},
		"token_endpoint_auth_method": "none",
		"grant_types":                []any{"authorization_code", "refresh_token"},
		"response_types":             []any{"code"},
		"client_name":                "My App",
		"client_uri":                 "https://app.example.com/#top",
		"policy_uri":                 "https://app.example.com/policy",
		"scope":                      "a b",
		"contacts":                   []any{"a@example.com"},
		"software_id":                "x",
		"software_version":           "1",
		"application_type":           "native",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Row 35: the defaults are told, refresh_token among them.
func TestRegisterFillsInDefaults(t *testing.T) {
	s := newSite(t)
	for _, extra := range []string{``, `,"grant_types":[],"response_types":[]`, `,"grant_types":null,"response_types":null`} {
		got := s.register(`{"redirect_uris":["https://app.example.com/cb"]` + extra + `}`)
		if diff := cmp.Diff([]any{[]any{"authorization_code", "refresh_token"}, []any{"code"}}, []any{got["grant_types"], got["response_types"]}); diff != "" {
			t.Error(diff)
		}
	}
	if got := s.register(`{"redirect_uris":["https://a.example/cb"],"grant_types":["authorization_code"]}`); len(got["grant_types"].([]any)) != 1 {
		t.Errorf("%v", got["grant_types"])
	}
}

// SDK 4 and the issue: what is refused, and how.
func TestRegisterRefuses(t *testing.T) {
	s := newSite(t)
	const uris = `{"redirect_uris":["https://app.example.com/cb"],`
	list := func(n int) string { return `["` + strings.Repeat(`x","`, n-1) + `x"]` }
	for name, row := range map[string]struct{ document, code, contains string }{
		"malformed JSON":                 {`{`, "invalid_client_metadata", "malformed"},
		"null":                           {`null`, "invalid_client_metadata", "object"},
		"scalar":                         {`"x"`, "invalid_client_metadata", "object"},
		"array":                          {`[]`, "invalid_client_metadata", "object"},
		"empty body":                     {``, "invalid_client_metadata", "malformed"},
		"data after the document":        {uris + `"a":1}{}`, "invalid_client_metadata", "follows"},
		"duplicate member":               {uris + `"scope":"a","scope":"b"}`, "invalid_client_metadata", "same name"},
		"invalid UTF-8":                  {uris + "\"scope\":\"\xff\"}", "invalid_client_metadata", "UTF-8"},
		"deep nesting":                   {uris + `"jwks":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "invalid_client_metadata", "deeper"},
		"redirect_uris missing":          {`{"client_name":"x"}`, "invalid_redirect_uri", "redirect_uris"},
		"redirect_uris empty":            {`{"redirect_uris":[]}`, "invalid_redirect_uri", "redirect_uris"},
		"redirect_uris a string":         {`{"redirect_uris":"https://a.example"}`, "invalid_client_metadata", "member redirect_uris must be an array of strings"},
		"redirect_uris of numbers":       {`{"redirect_uris":[1]}`, "invalid_client_metadata", "member redirect_uris must be an array of strings"},
		"redirect_uris too many":         {`{"redirect_uris":` + list(33) + `}`, "invalid_client_metadata", "32 entries"},
		"redirect_uris too long":         {`{"redirect_uris":["https://a.example/` + strings.Repeat("a", 2048) + `"]}`, "invalid_client_metadata", "2048 bytes"},
		"redirect_uris with NUL":         {`{"redirect_uris":["https://a.example/\u0000"]}`, "invalid_client_metadata", "control characters"},
		"client_name with a line break":  {uris + `"client_name":"a\r\nb"}`, "invalid_client_metadata", "client_name"},
		"client_name with NUL":           {uris + `"client_name":"a\u0000b"}`, "invalid_client_metadata", "client_name"},
		"client_name too long":           {uris + `"client_name":"` + strings.Repeat("ä", 257) + `"}`, "invalid_client_metadata", "client_name"},
		"client_name a number":           {uris + `"client_name":1}`, "invalid_client_metadata", "member client_name must be a string"},
		"client_uri javascript":          {uris + `"client_uri":"javascript:alert(1)"}`, "invalid_client_metadata", "client_uri"},
		"logo_uri data":                  {uris + `"logo_uri":"data:image/png,x"}`, "invalid_client_metadata", "logo_uri"},
		"tos_uri relative":               {uris + `"tos_uri":"/tos"}`, "invalid_client_metadata", "tos_uri"},
		"policy_uri without host":        {uris + `"policy_uri":"https://"}`, "invalid_client_metadata", "policy_uri"},
		"jwks_uri file":                  {uris + `"jwks_uri":"file:///etc/passwd"}`, "invalid_client_metadata", "jwks_uri"},
		"jwks no object":                 {uris + `"jwks":"x"}`, "invalid_client_metadata", "jwks"},
		"jwks and jwks_uri":              {uris + `"jwks":{},"jwks_uri":"https://a.example/jwks"}`, "invalid_client_metadata", "jwks_uri"},
		"jwks too large":                 {uris + `"jwks":{"a":"` + strings.Repeat("a", 16<<10) + `"}}`, "invalid_client_metadata", "jwks"},
		"scope ill-formed":               {uris + `"scope":"a\\b"}`, "invalid_client_metadata", "scope"},
		"contacts too many":              {uris + `"contacts":` + list(33) + `}`, "invalid_client_metadata", "contacts"},
		"software_id with newline":       {uris + `"software_id":"a\nb"}`, "invalid_client_metadata", "software_id"},
		"application_type unknown":       {uris + `"application_type":"toaster"}`, "invalid_client_metadata", "native or web"},
		"auth method private_key_jwt":    {uris + `"token_endpoint_auth_method":"private_key_jwt"}`, "invalid_client_metadata", "none, client_secret_basic or client_secret_post"},
		"auth method bogus":              {uris + `"token_endpoint_auth_method":"bogus"}`, "invalid_client_metadata", "token_endpoint_auth_method"},
		"grant_types without code":       {uris + `"grant_types":["client_credentials"]}`, "invalid_client_metadata", "must contain authorization_code"},
		"grant_types refresh alone":      {uris + `"grant_types":["refresh_token"]}`, "invalid_client_metadata", "must contain authorization_code"},
		"response_types without code":    {uris + `"response_types":["token"]}`, "invalid_client_metadata", "must contain code"},
		"http redirect":                  {`{"redirect_uris":["http://app.example.com/cb"]}`, "invalid_redirect_uri", "http"},
		"javascript redirect":            {`{"redirect_uris":["javascript:alert(1)"]}`, "invalid_redirect_uri", "scheme"},
		"look-alike of loopback":         {`{"redirect_uris":["http://localhost.evil.example/cb"]}`, "invalid_redirect_uri", "http"},
		"relative redirect":              {`{"redirect_uris":["/cb"]}`, "invalid_redirect_uri", "absolute"},
		"private scheme of a web client": {`{"redirect_uris":["cursor://x/cb"],"application_type":"web"}`, "invalid_redirect_uri", "native"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.postJSON("/register", row.document)
			code, description := a.oauthError(t)
			if a.Status != 400 || code != row.code || !strings.Contains(description, row.contains) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
		})
	}
	if n := len(s.provider.clients); n != 6 {
		t.Errorf("%d clients in the store", n)
	}
}

// Row 30: of several redirect URIs the bad ones are dropped, and logged.
func TestRegisterDropsBadRedirectURIs(t *testing.T) {
	var log bytes.Buffer
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	got := s.register(`{"redirect_uris":["http://bad.example/cb","cursor://anysphere.cursor-mcp/cb","https://good.example/cb"],"client_name":"Cursor"}`)
	if diff := cmp.Diff([]any{"cursor://anysphere.cursor-mcp/cb", "https://good.example/cb"}, got["redirect_uris"]); diff != "" {
		t.Error(diff)
	}
	if line := log.String(); !strings.Contains(line, "http://bad.example/cb") || !strings.Contains(line, "hint=") {
		t.Errorf("log %s", line)
	}
}

func TestRegisterNoClientIDGeneration(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		c.NoClientIDGeneration = true
		p.store = registrarFunc(func(c *oauth.Client) (*oauth.Client, error) {
			if c.ClientID != "" || c.ClientIDIssuedAt != 0 || c.ClientSecret == "" {
				t.Errorf("%+v", c.ClientInformation)
			}
			registered := *c
			registered.ClientID = "chosen by the store"
			return &registered, nil
		})
	})
	if got := s.register(`{"redirect_uris":["https://a.example/cb"]}`); got["client_id"] != "chosen by the store" {
		t.Errorf("%v", got)
	}
}

type registrarFunc func(*oauth.Client) (*oauth.Client, error)

func (registrarFunc) GetClient(context.Context, string) (*oauth.Client, error) {
	return nil, oauth.ErrInvalidClient
}

func (f registrarFunc) RegisterClient(_ context.Context, c *oauth.Client) (*oauth.Client, error) {
	return f(c)
}

func TestRegisterStoreErrors(t *testing.T) {
	var storeErr error
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.store = registrarFunc(func(*oauth.Client) (*oauth.Client, error) { return nil, storeErr })
	})
	for _, row := range []struct {
		err    error
		status int
		code   string
	}{
		{oauth.ErrAccessDenied, 403, "access_denied"},
		{oauth.ErrTemporarilyUnavailable, 503, "temporarily_unavailable"},
		{errors.New("hunter2"), 500, "server_error"},
		{nil, 500, "server_error"},
	} {
		storeErr = row.err
		a := s.postJSON("/register", `{"redirect_uris":["https://a.example/cb"]}`)
		if code, _ := a.oauthError(t); a.Status != row.status || code != row.code || strings.Contains(a.Body, "hunter2") {
			t.Errorf("%v: %d %s", row.err, a.Status, a.Body)
		}
	}
}

// RFC 7591 §3: the initial access token.
func TestRegisterInitialAccessToken(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.InitialAccessToken = "let-me-in" })
	const challenge = `Bearer realm="https://auth.example.com"`
	for name, row := range map[string]struct {
		header    []string
		status    int
		challenge string
	}{
		"right":             {[]string{"Authorization", "bearer let-me-in"}, 201, ""},
		"missing":           {nil, 401, challenge},
		"wrong":             {[]string{"Authorization", "Bearer let-me-out"}, 401, challenge + `, error="invalid_token"`},
		"prefix":            {[]string{"Authorization", "Bearer let-me"}, 401, challenge + `, error="invalid_token"`},
		"empty":             {[]string{"Authorization", "Bearer "}, 401, challenge + `, error="invalid_token"`},
		"by another scheme": {[]string{"Authorization", "Basic let-me-in"}, 401, challenge + `, error="invalid_token"`},
		"one of two":        {[]string{"Authorization", "Bearer let-me-in", "Authorization", "Bearer x"}, 401, challenge + `, error="invalid_token"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.postJSON("/register", `{"redirect_uris":["https://a.example/cb"]}`, row.header...)
			if a.Status != row.status || a.Header.Get("WWW-Authenticate") != row.challenge {
				t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
			}
			if row.status == 401 {
				if code, _ := a.oauthError(t); code != "invalid_token" {
					t.Error(code)
				}
			}
		})
	}
}

// Refusals are logged with what an operator can act on, without secrets.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p.exchangeRefresh = func(*oauth.Client, authserver.RefreshExchange) (*oauth.Tokens, error) {
			return nil, fmt.Errorf("disk full")
		}
	})
	s.postForm("/token", "client_id=secret&client_secret=hunter2")
	s.postForm("/token", "client_id=public&grant_type=refresh_token&refresh_token=hunter2")
	s.do("GET", "/authorize?"+authorization("state", "hunter2", "response_type", "token"), "")
	got := log.String()
	for _, want := range []string{
		"level=INFO msg=\"request refused\" endpoint=/token error=invalid_client", "client_hash=", "remote_ip=127.0.0.1",
		"level=ERROR", `cause="disk full"`, "endpoint=/authorize error=unsupported_response_type",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") || strings.Contains(got, "s3cret") {
		t.Errorf("a secret is in the log:\n%s", got)
	}
}

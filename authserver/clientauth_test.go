package authserver_test

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// SDK 3.1, with 401, Basic, and the registered method enforced. A client that
// authenticates gets as far as the missing grant_type.
func TestClientAuthentication(t *testing.T) {
	const (
		authenticated = "The parameter grant_type is required"
		failed        = "Client authentication failed"
	)
	s := newSite(t)
	add := func(id, secret, method string) {
		s.addClient(&oauth.Client{
			ClientInformation: oauth.ClientInformation{ClientID: id, ClientSecret: secret},
			ClientMetadata:    oauth.ClientMetadata{TokenEndpointAuthMethod: method},
		})
	}
	add("jwt", "s3cret", oauth.AuthMethodPrivateKeyJWT)
	add("huge", strings.Repeat("a", 16<<10), "")
	add("lost", "", oauth.AuthMethodClientSecretPost)
	add("plain", "", "")
	add("a b", "p+q %", "")
	add("raw", "p%2Bq", oauth.AuthMethodClientSecretBasic)
	add("raw%2Bid", "s3cret", oauth.AuthMethodClientSecretBasic)
	add("https://app.example.com/client.json", "s3cret", oauth.AuthMethodClientSecretBasic)
	encoded := url.QueryEscape
	for name, row := range map[string]struct {
		form          string
		authorization string
		status        int
		description   string
	}{
		"none":                                {"client_id=public", "", 400, authenticated},
		"none, method not registered":         {"client_id=plain", "", 400, authenticated},
		"none, with an empty secret":          {"client_id=public&client_secret=", "", 400, authenticated},
		"none, Basic with an empty secret":    {"", basic("public", ""), 400, authenticated},
		"none, with a secret":                 {"client_id=public&client_secret=x", "", 401, failed},
		"none, Basic with a secret":           {"", basic("public", "x"), 401, failed},
		"other scheme is ignored":             {"client_id=public", "Bearer old", 400, authenticated},
		"post":                                {"client_id=post&client_secret=s3cret", "", 400, authenticated},
		"post, by Basic":                      {"", basic("post", "s3cret"), 401, failed},
		"basic":                               {"", basic("basic", "s3cret"), 400, authenticated},
		"basic, scheme in any case":           {"", strings.Replace(basic("basic", "s3cret"), "Basic", "bASIC", 1), 400, authenticated},
		"basic, in the body":                  {"client_id=basic&client_secret=s3cret", "", 401, failed},
		"basic, same client_id in the body":   {"client_id=basic", basic("basic", "s3cret"), 400, authenticated},
		"any method, post":                    {"client_id=secret&client_secret=s3cret", "", 400, authenticated},
		"any method, basic":                   {"", basic("secret", "s3cret"), 400, authenticated},
		"form-decoded":                        {"", basic(encoded("a b"), encoded("p+q %")), 400, authenticated},
		"raw":                                 {"", basic("a b", "p+q %"), 400, authenticated},
		"raw secret that looks encoded":       {"", basic("raw", "p%2Bq"), 400, authenticated},
		"raw id that looks encoded":           {"", basic("raw%2Bid", "s3cret"), 400, authenticated},
		"encoded URL as id":                   {"", basic(encoded("https://app.example.com/client.json"), "s3cret"), 400, authenticated},
		"client_id in the body, form-decoded": {"client_id=a+b", basic("a+b", encoded("p+q %")), 400, authenticated},

		"unknown client":               {"client_id=nobody&client_secret=s3cret", "", 401, failed},
		"unknown client without":       {"client_id=nobody", "", 401, failed},
		"unknown client, Basic":        {"", basic("nobody", "s3cret"), 401, failed},
		"secret missing":               {"client_id=secret", "", 401, failed},
		"secret empty":                 {"client_id=secret&client_secret=", "", 401, failed},
		"secret wrong":                 {"client_id=secret&client_secret=wrong", "", 401, failed},
		"secret with more":             {"client_id=secret&client_secret=s3cretx", "", 401, failed},
		"secret wrong, Basic":          {"", basic("basic", "wrong"), 401, failed},
		"method not supported":         {"client_id=jwt&client_secret=s3cret", "", 401, failed},
		"method needs a lost secret":   {"client_id=lost", "", 401, failed},
		"Basic without colon":          {"", "Basic " + base64.StdEncoding.EncodeToString([]byte("basic")), 401, failed},
		"Basic with an empty id":       {"", basic("", "s3cret"), 401, failed},
		"Basic no base64":              {"", "Basic !", 401, failed},
		"Basic empty":                  {"", "Basic", 401, failed},
		"Basic base64url":              {"", "Basic " + base64.RawURLEncoding.EncodeToString([]byte("basic:s3cret?")), 401, failed},
		"Basic with a control code":    {"", basic("basic", "s3cret\n"), 401, failed},
		"Basic no UTF-8":               {"", basic("basic", "\xff"), 401, failed},
		"Basic over 16 KiB":            {"", basic("huge", strings.Repeat("a", 16<<10)), 401, failed},
		"client_id missing":            {"", "", 400, "The parameter client_id is required, or HTTP Basic authentication"},
		"client_id only a secret":      {"client_secret=s3cret", "", 400, "The parameter client_id is required, or HTTP Basic authentication"},
		"two methods":                  {"client_secret=s3cret", basic("basic", "s3cret"), 400, "The client uses two methods of authentication: send the secret by Basic or in the body, not both"},
		"two clients":                  {"client_id=public", basic("basic", "s3cret"), 400, "client_id in the body is not the one in the Authorization header"},
		"client_id repeated":           {"client_id=public&client_id=public", "", 400, "The parameter client_id is repeated"},
		"client_secret repeated":       {"client_id=secret&client_secret=a&client_secret=s3cret", "", 400, "The parameter client_secret is repeated"},
		"client_id in the query alone": {"", "", 400, "The parameter client_id is required, or HTTP Basic authentication"},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if row.authorization != "" {
				header = []string{"Authorization", row.authorization}
			}
			a := s.postForm("/token?client_id=public", row.form, header...)
			code, description := a.oauthError(t)
			if a.Status != row.status || description != row.description {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
			if want := map[int]string{400: "invalid_request", 401: "invalid_client"}[row.status]; code != want {
				t.Errorf("%s, want %s", code, want)
			}
			challenge := a.Header.Get("WWW-Authenticate")
			if wantBasic := row.status == 401 && row.authorization != ""; wantBasic != (challenge == `Basic realm="https://auth.example.com", charset="UTF-8"`) {
				t.Errorf("WWW-Authenticate %q", challenge)
			}
		})
	}
	a := s.postForm("/token", "", "Authorization", basic("basic", "s3cret"), "Authorization", basic("basic", "s3cret"))
	if _, description := a.oauthError(t); a.Status != 400 || description != "There is more than one Authorization header" {
		t.Errorf("two Authorization headers: %d %s", a.Status, a.Body)
	}
}

// SDK 3.1, 5: expiry is told only to who knows the secret.
func TestClientSecretExpiry(t *testing.T) {
	s := newSite(t)
	now := s.clock.Now()
	for id, expires := range map[string]int64{"past": now.Unix() - 1, "now": now.Unix(), "future": now.Unix() + 1, "never": 0} {
		s.addClient(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: id, ClientSecret: "s3cret", ClientSecretExpiresAt: expires}})
	}
	for form, want := range map[string]string{
		"client_id=past&client_secret=s3cret":   "Client secret has expired",
		"client_id=now&client_secret=s3cret":    "Client secret has expired",
		"client_id=past&client_secret=wrong":    "Client authentication failed",
		"client_id=future&client_secret=s3cret": "The parameter grant_type is required",
		"client_id=never&client_secret=s3cret":  "The parameter grant_type is required",
	} {
		if _, got := s.postForm("/token", form).oauthError(t); got != want {
			t.Errorf("%s: %s", form, got)
		}
	}
	s.clock.advance(time.Second)
	if a := s.postForm("/token", "client_id=future&client_secret=s3cret"); a.Status != 401 {
		t.Errorf("a second later: %d %s", a.Status, a.Body)
	}
}

// SDK 3.1, 6: errors of the store.
func TestClientStoreErrors(t *testing.T) {
	var storeErr error
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.store = storeFunc(func(string) (*oauth.Client, error) { return nil, storeErr })
	})
	for name, row := range map[string]struct {
		err               error
		status            int
		code, description string
	}{
		"unknown":                  {oauth.ErrInvalidClient.Describe("no such id"), 401, "invalid_client", "Client authentication failed"},
		"nothing":                  {nil, 401, "invalid_client", "Client authentication failed"},
		"OAuth error":              {oauth.ErrTemporarilyUnavailable.Describe("later"), 503, "temporarily_unavailable", "later"},
		"too many":                 {oauth.ErrTooManyRequests.Describe("slow"), 429, "too_many_requests", "slow"},
		"any other, text not told": {errors.New("hunter2"), 500, "server_error", "Internal Server Error"},
	} {
		t.Run(name, func(t *testing.T) {
			storeErr = row.err
			a := s.postForm("/token", "client_id=x&grant_type=refresh_token&refresh_token=r")
			code, description := a.oauthError(t)
			if a.Status != row.status || code != row.code || description != row.description {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
}

// The answers to an unknown client and to a wrong secret are the same bytes.
func TestUnknownClientAndWrongSecretLookTheSame(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.RateLimits.Off = true })
	for _, path := range []string{"/token", "/revoke"} {
		unknown := s.postForm(path, "client_id=nobody&client_secret=x&token=t")
		wrong := s.postForm(path, "client_id=secret&client_secret=x&token=t")
		missing := s.postForm(path, "client_id=secret&token=t")
		for _, a := range []answer{wrong, missing} {
			unknown.Header.Del("Date")
			a.Header.Del("Date")
			if a.Status != unknown.Status || a.Body != unknown.Body || len(a.Header) != len(unknown.Header) {
				t.Errorf("%s: %+v and %+v", path, unknown, a)
			}
		}
	}
}

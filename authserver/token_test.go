package authserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestTokenWholeFlow(t *testing.T) {
	s := newSite(t)
	a := s.postForm("/token", redemption(s.code("scope", "mcp:read")))
	var tokens oauth.Tokens
	if err := json.Unmarshal([]byte(a.Body), &tokens); err != nil || a.Status != 200 {
		t.Fatalf("%d %s %v", a.Status, a.Body, err)
	}
	if tokens.TokenType != "Bearer" || tokens.Scope != "mcp:read" || tokens.ExpiresIn == nil || *tokens.ExpiresIn != time.Hour {
		t.Errorf("%s", a.Body)
	}
	a = s.postForm("/token", "grant_type=refresh_token&client_id=public&refresh_token="+tokens.RefreshToken)
	if a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("refresh: %d %v %s", a.Status, a.Header, a.Body)
	}
	// The old one is dead, with the code that makes clients start over.
	a = s.postForm("/token", "grant_type=refresh_token&client_id=public&refresh_token="+tokens.RefreshToken)
	if code, _ := a.oauthError(t); a.Status != 400 || code != "invalid_grant" {
		t.Errorf("dead refresh token: %d %s", a.Status, a.Body)
	}
}

// SDK 3.2.
func TestTokenGrants(t *testing.T) {
	resources, err := oauth.NewResourceSet([]string{"https://auth.example.com/mcp"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.Resources = resources })
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "noRefresh"},
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, GrantTypes: []string{"authorization_code"}},
	})
	refresh := func(pairs ...string) string {
		return with(url.Values{"grant_type": {"refresh_token"}, "client_id": {"public"}, "refresh_token": {"r"}}, pairs...)
	}
	for name, row := range map[string]struct {
		form           string
		code, contains string
	}{
		"grant_type missing":             {redemption("c", "grant_type", ""), "invalid_request", "grant_type is required"},
		"grant_type client_credentials":  {redemption("c", "grant_type", "client_credentials"), "unsupported_grant_type", "The grant type is not supported by this authorization server."},
		"grant_type not the client's":    {refresh("client_id", "noRefresh"), "unauthorized_client", "refresh_token"},
		"code missing":                   {redemption("", "code", ""), "invalid_request", "code is required"},
		"code unknown":                   {redemption("unknown"), "invalid_grant", "not valid"},
		"code of another client":         {redemption(s.code(), "client_id", "two"), "invalid_grant", "not valid"},
		"code_verifier missing":          {redemption(s.code(), "code_verifier", ""), "invalid_request", "code_verifier is required"},
		"code_verifier too short":        {redemption(s.code(), "code_verifier", verifier[:42]), "invalid_request", "43 to 128"},
		"code_verifier too long":         {redemption(s.code(), "code_verifier", strings.Repeat("a", 129)), "invalid_request", "43 to 128"},
		"code_verifier ill-formed":       {redemption(s.code(), "code_verifier", strings.Repeat("+", 43)), "invalid_request", "43 to 128"},
		"code_verifier wrong":            {redemption(s.code(), "code_verifier", strings.Repeat("a", 43)), "invalid_grant", "code_verifier does not match the challenge"},
		"code_verifier is the challenge": {redemption(s.code(), "code_verifier", oauth.ChallengeS256(verifier)), "invalid_grant", "does not match"},
		"redirect_uri other":             {redemption(s.code(), "redirect_uri", "https://app.example.com/x"), "invalid_grant", "redirect_uri"},
		"redirect_uri left out":          {redemption(s.code(), "redirect_uri", ""), "invalid_grant", "redirect_uri"},
		"resource unknown":               {redemption(s.code(), "resource", "https://evil.example"), "invalid_target", "resource"},
		"resource repeated":              {redemption(s.code(), "resource", "https://auth.example.com/mcp") + "&resource=x", "invalid_request", "resource is repeated"},
		"refresh_token missing":          {refresh("refresh_token", ""), "invalid_request", "refresh_token is required"},
		"refresh_token unknown":          {refresh(), "invalid_grant", "not valid"},
		"refresh scope ill-formed":       {refresh("scope", `"`), "invalid_scope", "character"},
		"refresh resource relative":      {refresh("resource", "mcp"), "invalid_target", "resource"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.postForm("/token", row.form)
			code, description := a.oauthError(t)
			if a.Status != 400 || code != row.code || !strings.Contains(description, row.contains) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
		})
	}
}

// A code is good for the right verifier after somebody tried a wrong one.
func TestTokenWrongVerifierChangesNothing(t *testing.T) {
	s := newSite(t)
	code := s.code()
	s.postForm("/token", redemption(code, "code_verifier", strings.Repeat("a", 43)))
	if a := s.postForm("/token", redemption(code)); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := s.postForm("/token", redemption(code)); a.Status != 400 {
		t.Errorf("second use: %d %s", a.Status, a.Body)
	}
}

// RFC 9700 §4.8.2: a code that was issued without a challenge matches nothing.
func TestTokenPKCEDowngrade(t *testing.T) {
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.challengeForCode = func(*oauth.Client, string) (string, error) { return "", nil }
		p.exchangeCode = func(context.Context, *oauth.Client, authserver.CodeExchange) (*oauth.Tokens, error) {
			t.Error("the code was exchanged")
			return nil, nil
		}
	})
	for _, v := range []string{verifier, "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"} {
		if code, _ := s.postForm("/token", redemption("c", "code_verifier", v)).oauthError(t); code != "invalid_grant" {
			t.Errorf("%s: %s", v, code)
		}
	}
}

// SDK 3.2: skipLocalPkceValidation, but an empty verifier does not pass.
func TestTokenSkipPKCE(t *testing.T) {
	var got authserver.CodeExchange
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.skipPKCE = true
		p.challengeForCode = func(*oauth.Client, string) (string, error) {
			t.Error("the challenge was looked up")
			return "", nil
		}
		p.exchangeCode = func(_ context.Context, _ *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
			got = x
			return &oauth.Tokens{AccessToken: "a", TokenType: "Bearer", IDToken: "id"}, nil
		}
	})
	a := s.postForm("/token", redemption("c", "resource", "https://auth.example.com/mcp"))
	if diff := cmp.Diff("{\"access_token\":\"a\",\"id_token\":\"id\",\"token_type\":\"Bearer\"}\n", a.Body); diff != "" {
		t.Error(diff)
	}
	want := authserver.CodeExchange{Code: "c", Verifier: verifier, RedirectURI: callback, Resource: "https://auth.example.com/mcp"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if a := s.postForm("/token", redemption("c", "code_verifier", "")+"&code_verifier="); a.Status != 400 {
		t.Errorf("empty verifier: %d", a.Status)
	}
}

func TestTokenRefreshParameters(t *testing.T) {
	var got authserver.RefreshExchange
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.exchangeRefresh = func(_ *oauth.Client, x authserver.RefreshExchange) (*oauth.Tokens, error) {
			got = x
			return &oauth.Tokens{AccessToken: "a", TokenType: "Bearer"}, nil
		}
	})
	for form, want := range map[string]authserver.RefreshExchange{
		"":                    {RefreshToken: "r"},
		"&scope=":             {RefreshToken: "r"},
		"&scope=+a++b+a&x=y":  {RefreshToken: "r", Scopes: []string{"a", "b"}},
		"&resource=https://r": {RefreshToken: "r", Resource: "https://r"},
	} {
		s.postForm("/token", "client_id=public&grant_type=refresh_token&refresh_token=r"+form)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
	}
}

// SDK 3.2 answers every OAuthError but ServerError with 400; here each has its
// own status, and nothing of another error is told.
func TestTokenProviderErrors(t *testing.T) {
	var providerErr error
	var tokens *oauth.Tokens
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.exchangeRefresh = func(*oauth.Client, authserver.RefreshExchange) (*oauth.Tokens, error) { return tokens, providerErr }
	})
	for name, row := range map[string]struct {
		err         error
		status      int
		code, descr string
		retryAfter  string
	}{
		"invalid_grant":           {oauth.ErrInvalidGrant.Describe("gone"), 400, "invalid_grant", "gone", ""},
		"invalid_client":          {oauth.ErrInvalidClient.Describe("gone"), 401, "invalid_client", "gone", ""},
		"access_denied":           {oauth.ErrAccessDenied.Describe("no"), 403, "access_denied", "no", ""},
		"temporarily_unavailable": {oauth.ErrTemporarilyUnavailable.Describe("later"), 503, "temporarily_unavailable", "later", "5"},
		"too_many_requests":       {oauth.ErrTooManyRequests.Describe("slow"), 429, "too_many_requests", "slow", "30"},
		"custom":                  {oauth.NewError("use_dpop_nonce", "nonce"), 400, "use_dpop_nonce", "nonce", ""},
		"cause is not told":       {oauth.ErrServerError.Describe("sorry").Because(errors.New("hunter2")), 500, "server_error", "sorry", ""},
		"any other error":         {errors.New("hunter2"), 500, "server_error", "Internal Server Error", ""},
		"nothing at all":          {nil, 500, "server_error", "Internal Server Error", ""},
	} {
		t.Run(name, func(t *testing.T) {
			providerErr = row.err
			a := s.postForm("/token", "client_id=public&grant_type=refresh_token&refresh_token=r")
			code, description := a.oauthError(t)
			if a.Status != row.status || code != row.code || description != row.descr || a.Header.Get("Retry-After") != row.retryAfter {
				t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
			}
		})
	}
}

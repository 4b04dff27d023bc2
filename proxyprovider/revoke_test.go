package proxyprovider_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestRevokeRequests(t *testing.T) {
	u := newUpstream(t, nil)
	cfg := config(t, u)
	cfg.Clients = append(cfg.Clients, staticClient("thief", "th", ""), staticClient("basic", "b", "client_secret_basic"))
	p := newProxy(t, cfg)
	mine := refreshToken(t, u, p, client(t, p, "app"), "upstream-rt")
	u.set(answers(200, "", ""))
	rows := []struct {
		name, client string
		x            authserver.Revocation
		want         request
	}{
		{
			"an access token, in the SDK's order", "app",
			authserver.Revocation{Token: "at", TokenTypeHint: "access_token"},
			request{"POST", "/revoke", formType, "application/json", "", "token=at&client_id=app&client_secret=s3cret-of-app&token_type_hint=access_token"},
		},
		{
			"no hint", "app",
			authserver.Revocation{Token: "at"},
			request{"POST", "/revoke", formType, "application/json", "", "token=at&client_id=app&client_secret=s3cret-of-app"},
		},
		{
			"a refresh token is opened", "app",
			authserver.Revocation{Token: mine, TokenTypeHint: "refresh_token"},
			request{"POST", "/revoke", formType, "application/json", "", "token=upstream-rt&client_id=app&client_secret=s3cret-of-app&token_type_hint=refresh_token"},
		},
		{
			"whatever the hint says", "app",
			authserver.Revocation{Token: mine, TokenTypeHint: "access_token"},
			request{"POST", "/revoke", formType, "application/json", "", "token=upstream-rt&client_id=app&client_secret=s3cret-of-app&token_type_hint=access_token"},
		},
		{
			"another client's refresh token stays closed", "thief",
			authserver.Revocation{Token: mine},
			request{"POST", "/revoke", formType, "application/json", "", "token=" + mine + "&client_id=thief&client_secret=th"},
		},
		{
			// base64 of basic:b
			"basic", "basic",
			authserver.Revocation{Token: "at", TokenTypeHint: "x"},
			request{"POST", "/revoke", formType, "application/json", "Basic YmFzaWM6Yg==", "token=at&token_type_hint=x"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if err := revoker(t, p).RevokeToken(t.Context(), client(t, p, row.client), row.x); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]request{row.want}, u.got()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRevokeAnswers(t *testing.T) {
	rows := []struct {
		name, contentType string
		status            int
		body, want        string
	}{
		{"empty", "", 200, "", ""},
		{"no content", "", 204, "", ""},
		{"a page", "text/html", 200, "<html>ok", ""},
		{"JSON", "application/json", 200, `{"ok":true}`, ""},
		{"unknown token", "application/json", 400, `{"error":"invalid_token"}`, ""},
		{"dead token", "application/json", 400, `{"error":"invalid_grant"}`, ""},
		{"unsupported type", "application/json", 400, `{"error":"unsupported_token_type"}`, "unsupported_token_type Bad Request"},
		{"200 with an error", "application/json", 200, `{"error":"unsupported_token_type"}`, "unsupported_token_type Bad Request"},
		{"malformed", "application/json", 400, `{"error":"invalid_request"}`, "invalid_request Bad Request"},
		{"client refused", "application/json", 401, `{"error":"invalid_client"}`, "invalid_client Unauthorized"},
		{"trouble", "text/html", 500, "<html>", "temporarily_unavailable Service Unavailable"},
		{"busy", "", 429, "", "temporarily_unavailable Service Unavailable"},
		{"redirect", "", 302, "", "temporarily_unavailable Service Unavailable"},
		{"not there", "text/html", 404, "<html>", "temporarily_unavailable Service Unavailable"},
		{"10 MB", "", 200, strings.Repeat("x", 10<<20), "temporarily_unavailable Service Unavailable"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t, answers(row.status, row.contentType, row.body))
			p := newProxy(t, config(t, u))
			if err := revoker(t, p).RevokeToken(t.Context(), client(t, p, "app"), authserver.Revocation{Token: "at"}); code(err) != row.want {
				t.Errorf("RevokeToken: %v, want %q", err, row.want)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		u := newUpstream(t, hostile()["hangs"])
		p := newProxy(t, config(t, u))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := revoker(t, p).RevokeToken(ctx, client(t, p, "app"), authserver.Revocation{Token: "at"}); code(err) != "temporarily_unavailable Service Unavailable" {
			t.Error(err)
		}
	})
	t.Run("a client that nobody knows", func(t *testing.T) {
		u := newUpstream(t, nil)
		c := &oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: "nobody"}}
		if err := revoker(t, newProxy(t, config(t, u))).RevokeToken(t.Context(), c, authserver.Revocation{Token: "at"}); code(err) != "invalid_client Unauthorized" {
			t.Error(err)
		}
	})
}

package authserver_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK 5.
func TestRevoke(t *testing.T) {
	var revokeErr error
	var got authserver.Revocation
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.revoke = func(_ *oauth.Client, x authserver.Revocation) error { got = x; return revokeErr }
	})
	for name, row := range map[string]struct {
		form   string
		err    error
		status int
		code   string
		want   authserver.Revocation
	}{
		"token":                  {"client_id=public&token=t", nil, 200, "", authserver.Revocation{Token: "t"}},
		"with hint":              {"client_id=public&token=t&token_type_hint=refresh_token", nil, 200, "", authserver.Revocation{Token: "t", TokenTypeHint: "refresh_token"}},
		"unknown hint":           {"client_id=public&token=t&token_type_hint=x", nil, 200, "", authserver.Revocation{Token: "t", TokenTypeHint: "x"}},
		"confidential client":    {"client_id=post&client_secret=s3cret&token=t", nil, 200, "", authserver.Revocation{Token: "t"}},
		"unknown token":          {"client_id=public&token=t", oauth.ErrInvalidToken, 200, "", authserver.Revocation{Token: "t"}},
		"token missing":          {"client_id=public", nil, 400, "invalid_request", authserver.Revocation{}},
		"token empty":            {"client_id=public&token=", nil, 400, "invalid_request", authserver.Revocation{}},
		"token repeated":         {"client_id=public&token=a&token=b", nil, 400, "invalid_request", authserver.Revocation{}},
		"unknown client":         {"client_id=nobody&token=t", nil, 401, "invalid_client", authserver.Revocation{}},
		"wrong secret":           {"client_id=post&client_secret=x&token=t", nil, 401, "invalid_client", authserver.Revocation{}},
		"client before token":    {"client_id=nobody", nil, 401, "invalid_client", authserver.Revocation{}},
		"provider refuses":       {"client_id=public&token=t", oauth.ErrUnsupportedTokenType, 400, "unsupported_token_type", authserver.Revocation{Token: "t"}},
		"provider is in trouble": {"client_id=public&token=t", oauth.ErrTemporarilyUnavailable, 503, "temporarily_unavailable", authserver.Revocation{Token: "t"}},
		"provider fails":         {"client_id=public&token=t", errors.New("hunter2"), 500, "server_error", authserver.Revocation{Token: "t"}},
	} {
		t.Run(name, func(t *testing.T) {
			revokeErr, got = row.err, authserver.Revocation{}
			a := s.postForm("/revoke", row.form)
			if a.Status != row.status {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
			if row.status == 200 {
				if a.Body != "{}\n" || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%v %s", a.Header, a.Body)
				}
			} else if code, _ := a.oauthError(t); code != row.code {
				t.Errorf("%s, want %s", code, row.code)
			}
		})
	}
}

// RFC 7009 §2.1: a client revokes its own tokens only.
func TestRevokedTokenIsDead(t *testing.T) {
	s := newSite(t)
	var tokens oauth.Tokens
	if err := json.Unmarshal([]byte(s.postForm("/token", redemption(s.code())).Body), &tokens); err != nil {
		t.Fatal(err)
	}
	alive := func() bool {
		_, err := s.provider.VerifyAccessToken(t.Context(), tokens.AccessToken)
		return err == nil
	}
	if a := s.postForm("/revoke", "client_id=two&token="+tokens.AccessToken); a.Status != 200 || !alive() {
		t.Errorf("another client: %d, alive %v", a.Status, alive())
	}
	if a := s.postForm("/revoke", "client_id=public&token="+tokens.AccessToken); a.Status != 200 || alive() {
		t.Errorf("own: %d, alive %v", a.Status, alive())
	}
}

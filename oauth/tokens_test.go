package oauth_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestTokensJSON(t *testing.T) {
	hour, zero := time.Hour, time.Duration(0)
	for _, test := range []struct {
		name   string
		tokens oauth.Tokens
		want   string
	}{
		{"expiry unknown", oauth.Tokens{AccessToken: "a", TokenType: "Bearer"}, `{"access_token":"a","token_type":"Bearer"}`},
		{"expired is not unknown", oauth.Tokens{AccessToken: "a", TokenType: "Bearer", ExpiresIn: &zero}, `{"access_token":"a","token_type":"Bearer","expires_in":0}`},
		{
			"all, in the SDK's order",
			oauth.Tokens{
				AccessToken: "a", IDToken: "i", TokenType: "Bearer", ExpiresIn: &hour, Scope: "s", RefreshToken: "r",
				Extra: map[string]json.RawMessage{"x": json.RawMessage(`{"y":1}`)},
			},
			`{"access_token":"a","id_token":"i","token_type":"Bearer","expires_in":3600,"scope":"s","refresh_token":"r","x":{"y":1}}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := json.Marshal(test.tokens)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
			var back oauth.Tokens
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.tokens, back); diff != "" {
				t.Errorf("round trip, -want +got:\n%s", diff)
			}
		})
	}
}

func TestTokensExpiresIn(t *testing.T) {
	const tenYears = 10 * 365 * 24 * time.Hour
	for _, test := range []struct {
		value string
		want  time.Duration // -1 for an error, -2 for unknown
	}{
		{`3600`, time.Hour},
		{`"3600"`, time.Hour}, // SDK §7 coerces
		{`3599.9`, 3599 * time.Second},
		{`0`, 0},
		{`1e300`, tenYears},
		{`null`, -2},
		{`-1`, -1},
		{`"soon"`, -1},
		{`true`, -1},
		{`[]`, -1},
		{`1e999`, -1},
	} {
		t.Run(test.value, func(t *testing.T) {
			var tokens oauth.Tokens
			err := json.Unmarshal([]byte(`{"access_token":"a","token_type":"b","expires_in":`+test.value+`}`), &tokens)
			switch {
			case test.want == -1:
				if err == nil || !strings.Contains(err.Error(), "expires_in") {
					t.Errorf("error %v", err)
				}
			case err != nil:
				t.Errorf("error %v", err)
			case test.want == -2:
				if tokens.ExpiresIn != nil {
					t.Errorf("got %s", *tokens.ExpiresIn)
				}
			case tokens.ExpiresIn == nil || *tokens.ExpiresIn != test.want:
				t.Errorf("got %v", tokens.ExpiresIn)
			}
		})
	}
	for _, document := range []string{`{"token_type":"b"}`, `{"access_token":"a"}`, `{"access_token":1,"token_type":"b"}`} {
		if err := json.Unmarshal([]byte(document), new(oauth.Tokens)); err == nil {
			t.Errorf("%s was read", document)
		}
	}
}

package bearer_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func TestIntrospectionUserClaim(t *testing.T) {
	i := newIssuer(t)
	for _, test := range []struct {
		name, claim string
		answer      object
		want        string
	}{
		{"the member", "username", object{"active": true, "username": "al", "sub": "1"}, "al"},
		{"a number", "uid", object{"active": true, "uid": 7, "sub": "1"}, "7"},
		{"no other in its place", "uid", object{"active": true, "username": "al", "sub": "1"}, ""},
		{"null is absent", "uid", object{"active": true, "uid": nil}, ""},
		{"a sub as that of a user name, if it alone counts", "sub", object{"active": true, "sub": "username:al", "username": "x"}, "username:al"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.introspects(test.answer)
			var lines logLines
			v := newIntrospection(t, i, bearer.IntrospectionConfig{UserClaim: test.claim, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
			info, err := v.VerifyAccessToken(t.Context(), "token")
			if err != nil || info.UserID != test.want {
				t.Errorf("%+v, %v", info, err)
			}
			if strings.Contains(lines.String(), "does not say whose a token is") != (test.want == "") {
				t.Errorf("logged: %s", lines.String())
			}
		})
	}
}

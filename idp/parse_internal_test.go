package idp

import (
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

// No answer of a token endpoint gives a token that would break a header or a
// log line, nor a time before now.
func FuzzTokenAnswer(f *testing.F) {
	f.Add(`{"access_token":"a","expires_in":3600,"refresh_token":"b","scope":"c","id_token":"d"}`)
	f.Add(`{"error":"invalid_grant","error_description":"x"}`)
	f.Add("access_token=a&expires_in=60&token_type=bearer")
	f.Add(`{"access_token":"a","expires_in":"1e400"}`)
	f.Fuzz(func(t *testing.T, body string) {
		answer, err := parseTokenAnswer(&safehttp.Answer{Status: 200, Body: []byte(body)})
		if err != nil {
			return
		}
		if answer.expiresIn < 0 || len(answer.accessToken) > maxToken || strings.ContainsAny(answer.accessToken+answer.refreshToken, "\r\n\x00 ") {
			t.Errorf("%+v", answer)
		}
	})
}

// Whatever claims look like, what is made of them is within the bounds.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"a","email":"a@example.com","groups":["x"],"a":{"b":1}}`), "a.b")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		var c claims
		if unmarshal(data, &c) != nil {
			return
		}
		groups, _ := cleanGroups(c.list(name))
		if len(groups) > maxGroups || len(cleanName(c.str(name))) > maxName || len(cleanEmail(c.str(name))) > maxEmail {
			t.Error("over the bounds")
		}
		if id := c.id(name); id != "" && checkSubject(id) == nil && strings.ContainsAny(id, "\r\n") {
			t.Errorf("subject %q", id)
		}
		c.keep([]string{name})
	})
}

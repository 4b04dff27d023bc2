package caddytest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestAccessLogNamesTheCaller: user_id and client_id, of the guarded requests
// that were admitted.
func TestAccessLogNamesTheCaller(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		authorization_server %s
		resource /mcp
	}
	reverse_proxy %s
}`, idp.URL, b.addr()))
	c.send("GET", "/mcp?who=alice", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"})), "")
	c.send("GET", "/mcp?who=machine", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp", "sub": nil})), "")
	c.send("GET", "/mcp?who=nobody", nil, "")
	c.send("GET", "/open?who=open", nil, "")
	type entry struct {
		Msg      string
		UserID   *string `json:"user_id"`
		ClientID *string `json:"client_id"`
		Request  struct{ URI string }
	}
	seen := map[string]string{}
	for line := range strings.Lines(c.log()) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Msg != "handled request" {
			continue
		}
		text := func(s *string) string {
			if s == nil {
				return "-"
			}
			return *s
		}
		_, who, _ := strings.Cut(e.Request.URI, "who=")
		seen[who] = text(e.UserID) + " " + text(e.ClientID)
	}
	for who, want := range map[string]string{"alice": "alice c1", "machine": "c1 c1", "nobody": " -", "open": " -"} {
		if got := seen[who]; got != want && got != strings.ReplaceAll(want, " -", "- -") {
			t.Errorf("%s: user_id and client_id are %q, want %q", who, got, want)
		}
	}
}

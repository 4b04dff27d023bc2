package caddytest_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestAssertionsInLogs: the two ways that docs/forwarding.md has to keep assertions
// out of the log of reverse_proxy, which has the headers of a stream that its
// client leaves.
func TestAssertionsInLogs(t *testing.T) {
	const plain = `{"format":"json"}`
	for _, row := range []struct{ name, header, encoder string }{
		{"in Authorization", "Authorization", plain},
		{"filtered", "X-MCP-Identity", `{"format":"filter","fields":{"request\u003eheaders\u003eX-Mcp-Identity":{"filter":"delete"}}}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp, s, c := newScriptedIDP(t), newStepper(t), newCaddy(t)
			config := c.adapt("", fmt.Sprintf(`{ORIGIN} {
				mcp_auth {ORIGIN} {
					authorization_server %s
					resource /mcp {
						forward jwt {
							header %s
						}
					}
				}
				reverse_proxy %s
			}`, idp.URL, row.header, s.Listener.Addr()))
			if !bytes.Contains(config, []byte(plain)) {
				t.Fatalf("no encoder in %s", config)
			}
			if err := caddy.Load(bytes.ReplaceAll(config, []byte(plain), []byte(row.encoder)), true); err != nil {
				t.Fatal(err)
			}
			token := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
			client := &http.Client{Transport: new(http.Transport)}
			resp, _ := openStream(t, client, c.Origin+"/mcp/events", token)
			_ = resp.Body.Close()
			waitFor(t, func() bool { return strings.Contains(c.log(), "aborting with incomplete response") })
			log := c.log()
			if !strings.Contains(log, `"X-Forwarded-For"`) {
				t.Error("the log has no headers at all")
			}
			if strings.Contains(log, "eyJ") {
				t.Error("the log holds a token")
			}
		})
	}
}

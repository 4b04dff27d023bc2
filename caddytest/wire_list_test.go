package caddytest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// filteredSite compresses what it may, and filters lists. %s are the issuer and
// the server behind.
const filteredSite = `
{ORIGIN} {
	encode gzip
	mcp_auth {ORIGIN} {
		authorization_server %s
		resource /mcp {
			scopes mcp:read
			tool delete_* mcp:admin
			lists filter
		}
	}
	reverse_proxy %s
}
`

func TestListsThroughCaddy(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(filteredSite, idp.URL, b.addr()))
	padding := strings.Repeat(" ", 4096) // worth compressing
	all := `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"delete_all"},{"name":"read"}]}}` + padding
	some := `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read"}]}}` + padding
	packed := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	for _, row := range []struct {
		rule, contentType, encoding, body string
		status                            int
		want                              string
	}{
		{"JSON", "application/json", "", all, 200, some},
		{"JSON that says something else", "text/plain", "", all, 200, some},
		{"an event among others", "text/event-stream", "", ": x\n\nid: 1\ndata: {}\n\nid: 2\ndata: " + all + "\n\n", 200, ": x\n\nid: 1\ndata: {}\n\nid: 2\ndata: " + some + "\n\n"},
		{"odd line ends", "text/event-stream", "", "id: 2\rdata: " + all + "\r\r", 200, "id: 2\ndata: " + some + "\n\n"},
		{"gzip although plain was asked for", "application/json", "gzip", packed(all), 502, ""},
		{"gzip of events", "text/event-stream", "gzip", packed("data: " + all + "\n\n"), 502, ""},
		{"JSON that is cut", "application/json", "", all[:70], 502, ""},
	} {
		t.Run(row.rule, func(t *testing.T) {
			b.answer = func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Accept-Encoding"); got != "identity" {
					t.Errorf("the server is asked for %q", got)
				}
				w.Header().Set("Content-Type", row.contentType)
				if row.encoding != "" {
					w.Header().Set("Content-Encoding", row.encoding)
				}
				_, _ = io.WriteString(w, row.body)
			}
			header := bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"}))
			header.Set("Content-Type", "application/json")
			header.Set("Accept-Encoding", "gzip")
			resp, body := c.send("POST", "/mcp", header, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
			if resp.StatusCode != row.status || row.status == 200 && body != row.want {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if strings.Contains(body, "delete_all") || resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%v %s", resp.Header, body)
			}
			header = bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp", "scope": "mcp:read mcp:admin"}))
			header.Set("Content-Type", "application/json")
			if resp, body := c.send("POST", "/mcp", header, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`); row.status == 200 && (resp.StatusCode != 200 || body != strings.ReplaceAll(row.body, "\r", "\n")) {
				t.Errorf("who may call all sees %d %s", resp.StatusCode, body)
			}
		})
	}
}

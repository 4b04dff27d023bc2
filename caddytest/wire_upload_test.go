package caddytest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestEndedUpload: the token ends while the request is being sent. The rest of the
// request is not taken for other requests, and the client gets an answer, also if
// it says no more.
func TestEndedUpload(t *testing.T) {
	for name, globals := range map[string]string{
		"all protocols":  "",
		"HTTP/1 alone":   "\n\tservers {\n\t\tprotocols h1\n\t}\n",
		"PROXY protocol": "\n\tservers {\n\t\tlistener_wrappers {\n\t\t\tproxy_protocol\n\t\t}\n\t}\n",
	} {
		for _, goesOn := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, goes on: %t", name, goesOn), func(t *testing.T) {
				idp, b, c := newScriptedIDP(t), newBackend(t), newCaddy(t)
				if err := c.load(globals, fmt.Sprintf(guardedSite, "", idp.URL, "resource /mcp", b.addr())); err != nil {
					t.Fatal(err)
				}
				conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", c.Port))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				// A minute is for clocks that differ.
				token := idp.token(map[string]any{"aud": c.Origin + "/mcp", "exp": time.Now().Unix() + 2 - 60})
				part := strings.Repeat("GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n", 100)
				if _, err := fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %s\r\nContent-Length: 10000000\r\n\r\n%s", c.Port, token, part); err != nil {
					t.Fatal(err)
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for range 800 {
						if !goesOn {
							return
						}
						if _, err := io.WriteString(conn, part); err != nil {
							return // closed
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
				in := bufio.NewReader(conn)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusGatewayTimeout || !resp.Close {
					t.Errorf("status %d, closes: %t, %v", resp.StatusCode, resp.Close, err)
				}
				if rest, _ := io.ReadAll(in); len(rest) > 0 {
					t.Errorf("after the answer came %.100q", rest)
				}
				<-sent
				for _, r := range b.take() {
					if r.URL.Path == "/open" {
						t.Fatal("the body was taken for a request")
					}
				}
			})
		}
	}
}

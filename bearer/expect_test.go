package bearer_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

type refusesAll struct{}

func (refusesAll) VerifyAccessToken(context.Context, string) (*oauth.TokenInfo, error) {
	return nil, oauth.ErrInvalidToken
}

// A client that holds its body back until it is asked for it hears of a refusal
// without sending it. The writer knows no deadlines, so that a server that waits
// for the body waits for ever, and the body is wrapped, as Caddy's is.
func TestRefusalDoesNotWaitForABodyHeldBack(t *testing.T) {
	refusing := bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{Verifier: refusesAll{}})(http.NotFoundHandler())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = struct{ io.ReadCloser }{r.Body}
		refusing.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	}))
	defer s.Close()
	for _, size := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nExpect: 100-Continue\r\n"+size+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		_ = conn.Close()
		if err != nil {
			t.Errorf("%s: %v", size, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !resp.Close {
			t.Errorf("%s: status %d, closes %t", size, resp.StatusCode, resp.Close)
		}
	}
}

package bearer_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// timedWriter has deadlines, as the writers of a server do.
type timedWriter struct{ *httptest.ResponseRecorder }

func (timedWriter) SetReadDeadline(time.Time) error { return nil }

// BenchmarkPolicy is what the check of a call of 1 KiB costs, its body read
// included, beside the same request without rules.
func BenchmarkPolicy(b *testing.B) {
	body := rpc("tools/call", `{"name":"echo","arguments":{"text":"`+strings.Repeat("Lorem ipsum. ", 72)+`"}}`)
	for name, policy := range map[string]bearer.Policy{"none": {}, "tools": {Tools: rules("delete_*", "mcp:delete", "admin_*", "mcp:admin")}} {
		b.Run(fmt.Sprintf("%s/%d bytes", name, len(body)), func(b *testing.B) {
			resource := guardResource()
			resource.Policy = policy
			guard := newGuard(b, guardTokens{"good": guardToken("mcp:read")}, resource)
			header := http.Header{"Authorization": {"Bearer good"}, "Content-Type": {"application/json"}}
			writer := timedWriter{httptest.NewRecorder()}
			reader := strings.NewReader(body)
			request := httptest.NewRequest(http.MethodPost, "/mcp", nil)
			request.Header, request.ContentLength = header, int64(len(body))
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				request.Body = io.NopCloser(reader)
				if _, ok := guard.Check(writer, request, nil); !ok {
					b.Fatal("refused")
				}
				if _, err := io.Copy(io.Discard, request.Body); err != nil {
					b.Fatal(err)
				}
				request.Body.Close()
			}
		})
	}
}

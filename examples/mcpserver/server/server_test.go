package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-mcp/mcpauth/examples/mcpserver/server"
)

// headers adds fixed headers to every request, as a proxy would.
type headers http.Header

func (h headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range h {
		r.Header[name] = values
	}
	return http.DefaultTransport.RoundTrip(r)
}

func connect(t *testing.T, path string, h headers) *mcp.ClientSession {
	t.Helper()
	ts := httptest.NewServer(server.New(server.Options{}))
	t.Cleanup(ts.Close)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   ts.URL + path,
		HTTPClient: &http.Client{Transport: h},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func TestTools(t *testing.T) {
	identity := headers{"X-Mcp-User": {"alice"}, "X-Mcp-Client": {"c1"}, "X-Mcp-Scope": {"mcp:read"}}
	tests := map[string]struct {
		headers headers
		path    string
		call    mcp.CallToolParams
		want    any    // structured content
		text    string // text of the first content, when want is nil
		isError bool
	}{
		"echo answers the text": {
			path: "/mcp",
			call: mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "hello"}},
			text: "hello",
		},
		"any path is served": {
			path: "/other/path",
			call: mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "hello"}},
			text: "hello",
		},
		"whoami tells the headers": {
			path:    "/mcp",
			headers: identity,
			call:    mcp.CallToolParams{Name: "whoami"},
			want:    map[string]any{"user": "alice", "client": "c1", "scope": "mcp:read", "authorization": false},
		},
		"whoami tells that no headers came": {
			path: "/mcp",
			call: mcp.CallToolParams{Name: "whoami"},
			want: map[string]any{"user": "", "client": "", "scope": "", "authorization": false},
		},
		"whoami tells that the token came through": {
			path:    "/mcp",
			headers: headers{"Authorization": {"Bearer x"}},
			call:    mcp.CallToolParams{Name: "whoami"},
			want:    map[string]any{"user": "", "client": "", "scope": "", "authorization": true},
		},
		"delete_note deletes": {
			path: "/mcp",
			call: mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "todo"}},
			text: "deleted todo",
		},
		"deleting what is not there is a tool error": {
			path:    "/mcp",
			call:    mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "none"}},
			text:    `there is no note "none"`,
			isError: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := connect(t, tt.path, tt.headers).CallTool(t.Context(), &tt.call)
			if err != nil {
				t.Fatal(err)
			}
			if got.IsError != tt.isError {
				t.Errorf("IsError = %v, want %v", got.IsError, tt.isError)
			}
			if tt.want != nil {
				if diff := cmp.Diff(tt.want, got.StructuredContent); diff != "" {
					t.Errorf("structured content (-want +got):\n%s", diff)
				}
				return
			}
			if text := got.Content[0].(*mcp.TextContent).Text; text != tt.text {
				t.Errorf("text = %q, want %q", text, tt.text)
			}
		})
	}
}

func TestResourceAndPrompt(t *testing.T) {
	session := connect(t, "/mcp", nil)
	if _, err := session.CallTool(t.Context(), &mcp.CallToolParams{
		Name: "delete_note", Arguments: map[string]any{"name": "todo"},
	}); err != nil {
		t.Fatal(err)
	}
	read, err := session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "note:///all"})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, c := range read.Contents {
		texts = append(texts, c.Text)
	}
	if diff := cmp.Diff([]string{"welcome: This note came through the proxy."}, texts); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	prompt, err := session.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "summarize_notes"})
	if err != nil {
		t.Fatal(err)
	}
	if len(prompt.Messages) != 1 || prompt.Messages[0].Role != "user" {
		t.Errorf("prompt messages = %+v, want one of the user", prompt.Messages)
	}
}

// Package server is a small MCP server that knows nothing of OAuth: what
// stands in front of it decides who may call it. Tests and the quickstart
// start it in-process.
package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Identity is what the proxy in front of the server says about the caller, as
// it arrived in the request's headers. A header that did not arrive is empty.
type Identity struct {
	User   string `json:"user" jsonschema:"value of X-MCP-User"`
	Client string `json:"client" jsonschema:"value of X-MCP-Client"`
	Scope  string `json:"scope" jsonschema:"value of X-MCP-Scope"`

	// Authorization tells whether the caller's Authorization header came
	// through; it should not.
	Authorization bool `json:"authorization" jsonschema:"true if an Authorization header arrived"`
}

// Options are the settings of the server. The zero value is usable.
type Options struct {
	// JSONResponse answers with application/json instead of an event stream.
	JSONResponse bool
}

// New returns the server as a streamable HTTP handler. It answers on any path.
func New(opts Options) http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "notes", Title: "Example notes", Version: "1.0.0"}, nil)
	addNotes(s, newNotes())
	mcp.AddTool(s, &mcp.Tool{
		Name:        "echo",
		Description: "Answers with the text that it was given.",
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, echo)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "whoami",
		Description: "Tells who is calling, as the proxy in front of this server says.",
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, whoami)
	s.AddPrompt(&mcp.Prompt{
		Name:        "summarize_notes",
		Description: "Asks for a summary of all notes.",
	}, summarizeNotes)
	return mcp.NewStreamableHTTPHandler(
		func(*http.Request) *mcp.Server { return s },
		&mcp.StreamableHTTPOptions{JSONResponse: opts.JSONResponse},
	)
}

type echoInput struct {
	Text string `json:"text" jsonschema:"the text to answer with"`
}

func echo(_ context.Context, _ *mcp.CallToolRequest, in echoInput) (*mcp.CallToolResult, any, error) {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Text}}}, nil, nil
}

func whoami(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, Identity, error) {
	var id Identity
	if req.Extra != nil {
		h := req.Extra.Header
		id = Identity{
			User:          h.Get("X-Mcp-User"),
			Client:        h.Get("X-Mcp-Client"),
			Scope:         h.Get("X-Mcp-Scope"),
			Authorization: h.Get("Authorization") != "",
		}
	}
	return nil, id, nil
}

func summarizeNotes(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{
		Messages: []*mcp.PromptMessage{{
			Role:    "user",
			Content: &mcp.TextContent{Text: "Read the resources under note:///all and summarize them in three sentences."},
		}},
	}, nil
}

// notes is the data of the example: a few texts by name.
type notes struct {
	mu   sync.Mutex
	text map[string]string // guarded by mu
}

func newNotes() *notes {
	return &notes{text: map[string]string{
		"welcome": "This note came through the proxy.",
		"todo":    "Add this server to an MCP client.",
	}}
}

type deleteInput struct {
	Name string `json:"name" jsonschema:"the note to delete"`
}

func (n *notes) delete(_ context.Context, _ *mcp.CallToolRequest, in deleteInput) (*mcp.CallToolResult, any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.text[in.Name]; !ok {
		return nil, nil, fmt.Errorf("there is no note %q", in.Name)
	}
	delete(n.text, in.Name)
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "deleted " + in.Name}}}, nil, nil
}

func (n *notes) read(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	contents := make([]*mcp.ResourceContents, 0, len(n.text))
	for _, name := range slices.Sorted(maps.Keys(n.text)) {
		contents = append(contents, &mcp.ResourceContents{
			URI:      req.Params.URI,
			MIMEType: "text/plain",
			Text:     name + ": " + n.text[name],
		})
	}
	return &mcp.ReadResourceResult{Contents: contents}, nil
}

func addNotes(s *mcp.Server, n *notes) {
	s.AddResource(&mcp.Resource{
		URI:         "note:///all",
		Name:        "notes",
		Description: "All notes.",
		MIMEType:    "text/plain",
	}, n.read)
	destructive := true
	mcp.AddTool(s, &mcp.Tool{
		Name:        "delete_note",
		Description: "Deletes a note for good.",
		Annotations: &mcp.ToolAnnotations{DestructiveHint: &destructive},
	}, n.delete)
}

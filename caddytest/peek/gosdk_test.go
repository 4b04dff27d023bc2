// Package peek_test compares what the guard makes of a call with what go-sdk's
// server does. It stands alone so that fuzzing it does not build Caddy.
package peek_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// goServer is go-sdk's server, told to write down what it is asked and to answer
// nothing.
type goServer struct {
	http.Handler
	mu    sync.Mutex
	asked []strictjson.Message // guarded by mu
}

var errSeen = errors.New("seen")

func newGoServer() *goServer {
	s := new(goServer)
	server := mcp.NewServer(&mcp.Implementation{Name: "peek", Version: "1"}, &mcp.ServerOptions{
		Capabilities: &mcp.ServerCapabilities{
			Tools: new(mcp.ToolCapabilities), Prompts: new(mcp.PromptCapabilities), Resources: new(mcp.ResourceCapabilities),
		},
		CompletionHandler: func(context.Context, *mcp.CompleteRequest) (*mcp.CompleteResult, error) { return nil, errSeen },
	})
	server.AddReceivingMiddleware(func(mcp.MethodHandler) mcp.MethodHandler {
		return func(_ context.Context, method string, request mcp.Request) (mcp.Result, error) {
			s.mu.Lock()
			s.asked = append(s.asked, message(method, request.GetParams()))
			s.mu.Unlock()
			return nil, errSeen
		}
	})
	s.Handler = mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true, DisableLocalhostProtection: true})
	return s
}

// message is what go-sdk decoded, as far as a policy reads it.
func message(method string, params mcp.Params) strictjson.Message {
	m := strictjson.Message{Method: method}
	switch p := params.(type) {
	case *mcp.CallToolParamsRaw:
		m.Name = p.Name
	case *mcp.GetPromptParams:
		m.Name = p.Name
	case *mcp.ReadResourceParams:
		m.URI = p.URI
	case *mcp.SubscribeParams:
		m.URI = p.URI
	case *mcp.UnsubscribeParams:
		m.URI = p.URI
	case *mcp.CompleteParams:
		if p.Ref != nil {
			m.Name, m.URI = p.Ref.Name, p.Ref.URI
		}
	}
	return m
}

// ask sends a body and returns what the server took it for.
func (s *goServer) ask(body string) []strictjson.Message {
	request := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	s.ServeHTTP(httptest.NewRecorder(), request)
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// compare holds that go-sdk is asked for nothing but what the guard has seen.
func compare(t *testing.T, server *goServer, body string) {
	t.Helper()
	messages, _, err := strictjson.AppendMessages(nil, []byte(body), false)
	if err != nil {
		return
	}
	for _, asked := range server.ask(body) {
		if !slices.ContainsFunc(messages, func(m strictjson.Message) bool {
			if named(m.Method) {
				return m.Method == asked.Method && m.Name == asked.Name && m.URI == asked.URI
			}
			return m.Method == asked.Method
		}) {
			t.Errorf("%q: go-sdk took it for %+v, the guard for %+v", body, asked, messages)
		}
	}
}

// named tells whether a policy looks at the name or URI of a method.
func named(method string) bool {
	switch method {
	case "tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe", "completion/complete":
		return true
	}
	return false
}

// seeds are calls, good ones and such that try to be two.
var seeds = []string{
	`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{}}}`,
	`{"jsonrpc":"2.0","id":"x","\u006dethod":"tools\/call","params":{"n\u0061me":"\u0061\ud83d\ude00"}}`,
	`{"params":{"uri":"file:///a"},"method":"resources/read","id":1.0,"jsonrpc":"2.0"}`,
	`{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b","URI":"c"}}`,
	`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"a","_meta":{"name":"b","x":1,"x":2}}}`,
	`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"x","value":"y"}}}`,
	`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"a"}}`,
	`{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"ping","params":{"name":"a","Name":"b"}}`,
	`{"jsonrpc":"2.0","method":"notifications/initialized","paramſ":{}}`,
	`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`,
	`{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}`,
	`{"jsonrpc":"2.0","id":1,"method":"ping"} {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`,
	`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":null}`,
	`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}`,
}

func TestGoSDKSeesTheSameCalls(t *testing.T) {
	server := newGoServer()
	for _, body := range seeds[:3] {
		if asked := server.ask(body); len(asked) != 1 {
			t.Fatalf("%s: go-sdk was asked %+v; the comparison would show nothing", body, asked)
		}
	}
	for _, body := range seeds {
		compare(t, server, body)
	}
}

func FuzzGoSDK(f *testing.F) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	server := newGoServer()
	f.Fuzz(func(t *testing.T, body string) { compare(t, server, body) })
}

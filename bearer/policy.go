package bearer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Policy says who may make which MCP calls to a resource, besides the scopes
// that every request needs. Its zero value allows all, and reads no body.
//
// With rules or When, a POST must be JSON-RPC that leaves nobody in doubt what it
// asks for: unencoded (415), of bounded size (413), without members twice or in
// another case (400); see strictjson.AppendMessages. All calls of a batch must
// pass. GET, HEAD, DELETE and OPTIONS carry no call and no body, and responses
// of JSON-RPC none either: they pass with the scopes of every request. Other
// methods are refused.
type Policy struct {
	// Tools are rules on the name that tools/call calls.
	Tools []NameRule
	// Prompts are rules on the name that prompts/get gets, and that
	// completion/complete refers to.
	Prompts []NameRule
	// URIs are rules on the resources that are read, subscribed to and completed.
	// They match in any spelling that servers may take for the same: case, escapes,
	// dot segments, query and fragment do not matter.
	URIs []NameRule
	// Methods are rules on the JSON-RPC method, notifications included.
	Methods []NameRule

	// Allow, if set, tells whether whoever has the token may use the resource, and
	// if not why, for the log. It must be quick, and safe for concurrent use.
	Allow func(info *oauth.TokenInfo) (ok bool, reason string)
	// When, if set, is asked about every call once scopes suffice. An error refuses
	// the call and is logged. It must be bounded in time, and safe for concurrent
	// use.
	When func(ctx context.Context, call *Call) (bool, error)
	// WhenIgnoresArguments tells that When does not look at the arguments. They may
	// then be anything that is JSON.
	WhenIgnoresArguments bool

	// BodyLimit is the size of the largest body of a POST, in bytes; 0 means 1 MiB.
	BodyLimit int64
	// BodyTime is how long a body may take; 0 means 30 seconds.
	BodyTime time.Duration
	// TrustHeaders takes method and name from Mcp-Method and Mcp-Name, where they
	// tell all that the rules need and MCP-Protocol-Version is 2026-07-28 or later,
	// and leaves the body alone. The server behind must refuse a body that says
	// something else, as that revision demands of it. Otherwise these headers, where
	// they are sent, must equal the body.
	TrustHeaders bool
	// AllowUpgrade lets WebSocket and CONNECT through, in which calls are not seen.
	AllowUpgrade bool
}

// NameRule asks for further scopes for what a pattern matches. All rules that
// match add theirs.
type NameRule struct {
	// Pattern is compared with the decoded name, byte for byte. A "*" stands for
	// any run of characters, also an empty one; nothing else is special.
	Pattern string
	Scopes  []string
}

// Call is one call to an MCP server: a JSON-RPC request or notification. A
// subscription to several resources is one for each.
type Call struct {
	// Info is what the token says. It must not be changed.
	Info *oauth.TokenInfo
	// Method is the JSON-RPC method, never empty.
	Method string
	// Name is the name of the tool or the prompt, "" for other methods.
	Name string
	// URI is that of the resource, "" for other methods.
	URI string
	// Arguments are those of the tool or prompt, nil if there are none. They are
	// valid during When only.
	Arguments json.RawMessage
}

// CallKind is a kind of thing that an MCP server lists.
type CallKind string

// What can be listed, by the method that uses an entry of the list.
const (
	ToolCall     CallKind = "tools/call"
	PromptCall   CallKind = "prompts/get"
	ResourceCall CallKind = "resources/read"
)

const (
	defaultBodyLimit = 1 << 20
	defaultBodyTime  = 30 * time.Second
)

// policy is a Policy, checked and made ready for requests.
type policy struct {
	Policy
	// seesCalls is false if nothing has to be known of the calls.
	seesCalls               bool
	tools, prompts, methods []nameRule
	uris                    []uriRule
}

type nameRule struct {
	glob
	scopes []string
}

type uriRule struct {
	uriGlob
	scopes []string
}

// setPolicy checks the rules.
func (g *guardedResource) setPolicy() error {
	p := &g.policy
	p.Policy = g.Policy
	for _, list := range []struct {
		setting string
		from    []NameRule
		to      *[]nameRule
	}{{"tool", g.Policy.Tools, &p.tools}, {"prompt", g.Policy.Prompts, &p.prompts}, {"method", g.Policy.Methods, &p.methods}} {
		for _, rule := range list.from {
			if err := g.checkNameRule(list.setting, rule); err != nil {
				return err
			}
			*list.to = append(*list.to, nameRule{glob(rule.Pattern), slices.Clone(rule.Scopes)})
		}
	}
	for _, rule := range g.Policy.URIs {
		if err := g.checkNameRule("uri", rule); err != nil {
			return err
		}
		p.uris = append(p.uris, uriRule{newURIGlob(rule.Pattern), slices.Clone(rule.Scopes)})
	}
	if p.BodyLimit < 0 || p.BodyTime < 0 {
		return errors.New("the limits of a body must not be negative; leave them out for 1 MiB and 30 seconds")
	}
	if p.BodyLimit == 0 {
		p.BodyLimit = defaultBodyLimit
	}
	if p.BodyTime == 0 {
		p.BodyTime = defaultBodyTime
	}
	p.seesCalls = len(p.tools)+len(p.prompts)+len(p.methods)+len(p.uris) > 0 || p.When != nil
	return nil
}

func (g *guardedResource) checkNameRule(setting string, rule NameRule) error {
	switch {
	case rule.Pattern == "":
		return fmt.Errorf("a %s rule has no pattern; write a name, or * for all", setting)
	case len(rule.Scopes) == 0:
		return fmt.Errorf("%s rule %q names no scope; write the scopes that it needs", setting, rule.Pattern)
	}
	if err := checkNeededScopes(fmt.Sprintf("%s rule %q", setting, rule.Pattern), rule.Scopes); err != nil {
		return err
	}
	g.addGrantable(rule.Scopes)
	return nil
}

// strictArguments tells whether arguments must have one reading only.
func (p *policy) strictArguments() bool { return p.When != nil && !p.WhenIgnoresArguments }

// needs adds to needed the scopes that the rules ask for. needed may be shared:
// it must have no room to grow.
func (p *policy) needs(needed []string, call *Call) []string {
	needed = addScopes(needed, p.methods, call.Method)
	switch {
	case call.URI != "":
		if len(p.uris) > 0 {
			needed = p.needsForURI(needed, call.URI)
		}
	case call.Name == "":
	case call.Method == string(ToolCall):
		needed = addScopes(needed, p.tools, call.Name)
	default:
		needed = addScopes(needed, p.prompts, call.Name)
	}
	return needed
}

func (p *policy) needsForURI(needed []string, uri string) []string {
	readings, endless := readURI(uri)
	for i := range p.uris {
		if endless || p.uris[i].matches(readings) {
			needed = unionScopes(needed, p.uris[i].scopes)
		}
	}
	return needed
}

func addScopes(needed []string, rules []nameRule, name string) []string {
	for i := range rules {
		if rules[i].matches(name) {
			needed = unionScopes(needed, rules[i].scopes)
		}
	}
	return needed
}

// appendCalls appends the calls of a message.
func appendCalls(calls []Call, info *oauth.TokenInfo, m *strictjson.Message) []Call {
	call := Call{Info: info, Method: m.Method, Arguments: m.Arguments}
	switch m.Method {
	case "": // a response
		return calls
	case "tools/call", "prompts/get", "completion/complete", "resources/read", "resources/subscribe", "resources/unsubscribe":
		call.Name, call.URI = m.Name, m.URI
	}
	if len(m.Subscriptions) == 0 {
		return append(calls, call)
	}
	for _, uri := range m.Subscriptions {
		call.URI = uri
		calls = append(calls, call)
	}
	return calls
}

// MayList reports whether an entry of a list that an MCP server answers with,
// the tool or prompt of that name or the resource with that URI, can be used
// with the token: whether its scopes suffice for the rules of the resource, and
// When, unless that looks at arguments, which are not known, does not refuse. A
// token cannot get more scopes; a client that steps up gets another token.
func (d Decision) MayList(kind CallKind, name string) bool {
	if d.Info == nil || name == "" {
		return !d.Guarded || d.Info != nil
	}
	call := Call{Info: d.Info, Method: string(kind), Name: name}
	if kind == ResourceCall {
		call.Name, call.URI = "", name
	}
	for _, res := range [...]*guardedResource{d.guarded, d.also} {
		if res == nil || !res.policy.seesCalls {
			continue
		}
		p := &res.policy
		if !res.grants(d.Info.Scopes, p.needs(nil, &call)) {
			return false
		}
		if p.When != nil && p.WhenIgnoresArguments {
			if ok, err := p.When(context.Background(), &call); err != nil || !ok {
				return false
			}
		}
	}
	return true
}

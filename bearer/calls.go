package bearer

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func badCall(description string) *oauth.Error { return oauth.ErrInvalidRequest.Describe(description) }

// policies are those of the one or two resources of the request.
func (c *check) policies() [2]*policy {
	p := [2]*policy{&c.resource.policy, nil}
	if c.other != nil {
		p[1] = &c.other.policy
	}
	return p
}

// callerIsAllowed comes before the scopes: whom the resource is not for should
// not be sent to ask for more of them.
func (c *check) callerIsAllowed() bool {
	for _, p := range c.policies() {
		if p == nil || p.Allow == nil {
			continue
		}
		if ok, reason := p.Allow(c.info); !ok {
			return c.refuse(oauth.ErrAccessDenied.Describe("This user may not use this resource").Because(errors.New(reason)))
		}
	}
	return true
}

// callsAreClear finds out what the request asks for, if a policy has to know,
// and adds the scopes that this needs to those of the request.
func (c *check) callsAreClear() bool {
	demands := callDemands{}
	for _, p := range c.policies() {
		demands.add(p)
	}
	if !demands.seesCalls {
		return true
	}
	if err := demands.readCalls(c); err != nil {
		return c.refuse(err)
	}
	if c.calls == nil {
		return true
	}
	c.needed = slices.Clip(c.needed)
	c.otherNeeded = slices.Clip(c.otherNeeded)
	for i := range c.calls.calls {
		call := &c.calls.calls[i]
		c.needed = c.resource.policy.needs(c.needed, call)
		if c.other != nil {
			c.otherNeeded = c.other.policy.needs(c.otherNeeded, call)
		}
	}
	return true
}

// lackingCall names the first call that the scopes do not suffice for.
func (c *check) lackingCall() string {
	if c.calls == nil {
		return ""
	}
	for i := range c.calls.calls {
		call := &c.calls.calls[i]
		if !c.resource.grants(c.info.Scopes, c.resource.policy.needs(nil, call)) ||
			c.other != nil && !c.other.grants(c.info.Scopes, c.other.policy.needs(nil, call)) {
			return call.label()
		}
	}
	return ""
}

// label names a call in a sentence, in printable ASCII and at most 80 characters.
func (call *Call) label() string {
	kind, name := "the method ", call.Method
	switch {
	case call.URI != "":
		kind, name = "the resource ", call.URI
	case call.Name != "" && call.Method == string(ToolCall):
		kind, name = "the tool ", call.Name
	case call.Name != "":
		kind, name = "the prompt ", call.Name
	}
	const longest = 64
	if len(name) > longest {
		name = name[:longest-3] + "..."
	}
	return kind + strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, name)
}

// callsArePermitted asks When about every call.
func (c *check) callsArePermitted() bool {
	if c.calls == nil {
		return true
	}
	for _, p := range c.policies() {
		if p == nil || p.When == nil {
			continue
		}
		for i := range c.calls.calls {
			if !c.permits(p, &c.calls.calls[i]) {
				return false
			}
		}
	}
	return true
}

func (c *check) permits(p *policy, call *Call) bool {
	ok, err := p.When(c.request.Context(), call)
	if ok && err == nil {
		return true
	}
	refusal := oauth.ErrAccessDenied.Describe("The policy of this resource does not permit " + call.label())
	if err != nil {
		c.guard.logger.LogAttrs(c.request.Context(), slog.LevelWarn, "a call is refused because its policy expression failed",
			slog.String("resource", c.resource.Identifier), slog.String("call", call.label()), slog.String("error", err.Error()))
		refusal = refusal.Because(err)
	}
	return c.refuse(refusal)
}

// handOn makes the body that was read the body of the request, or gives the
// buffer back where there is none.
func (c *check) handOn() {
	if c.calls == nil {
		return
	}
	if !c.admitted || !c.calls.holdsBody {
		c.calls.release()
	} else {
		c.calls.forget()
		c.request.Body = &callBody{Closer: c.request.Body, buffer: c.calls}
	}
	c.calls = nil
}

// callDemands is what the policies of a request have to know of it together.
type callDemands struct {
	seesCalls, strictArguments  bool
	trustsHeaders, takesUpgrade bool
	policy                      *policy // has the limits
}

func (d *callDemands) add(p *policy) {
	if p == nil || !p.seesCalls {
		return
	}
	if !d.seesCalls {
		*d = callDemands{seesCalls: true, trustsHeaders: true, takesUpgrade: true, policy: p}
	}
	d.strictArguments = d.strictArguments || p.strictArguments()
	d.trustsHeaders = d.trustsHeaders && p.TrustHeaders
	d.takesUpgrade = d.takesUpgrade && p.AllowUpgrade
	if p.BodyLimit < d.policy.BodyLimit {
		d.policy = p
	}
}

// readCalls sets the calls of the request; none are left nil.
func (d *callDemands) readCalls(c *check) *oauth.Error {
	r := c.request
	if !d.takesUpgrade {
		if err := refuseUpgrade(r); err != nil {
			return err
		}
	}
	switch r.Method {
	case http.MethodPost:
		return d.readPost(c)
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return d.readNothing(c)
	case http.MethodConnect: // an upgrade, which was let through
		return nil
	}
	c.writer.Header().Set("Allow", "GET, POST, DELETE")
	return oauth.ErrMethodNotAllowed.Describe("MCP knows GET, POST and DELETE")
}

// readNothing makes sure that a request that cannot be a call has no body. Over
// HTTP/2 and 3, and in chunks, that shows at the end only.
func (d *callDemands) readNothing(c *check) *oauth.Error {
	r := c.request
	if r.ContentLength < 0 && r.Body != nil {
		safehttp.BoundReading(c.writer, r, d.policy.BodyTime)
		c.readBody = true
		switch _, err := io.ReadFull(r.Body, make([]byte, 1)); {
		case errors.Is(err, io.EOF):
			safehttp.BoundReading(c.writer, r, 0)
			r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
		case err != nil:
			return bodyUnreadable(err)
		}
	}
	if r.ContentLength != 0 {
		return badCall("A " + r.Method + " request carries no body here; send calls with POST")
	}
	return nil
}

// refuseUpgrade refuses to leave HTTP, where no call is seen. An offer of HTTP/2,
// which Java's client makes to every http URL, is left out instead: a server may
// always ignore one (RFC 9110 §7.8).
func refuseUpgrade(r *http.Request) *oauth.Error {
	if r.Method == http.MethodConnect {
		return oauth.ErrAccessDenied.Describe("CONNECT is not possible here; its calls could not be checked")
	}
	protocols := r.Header["Upgrade"]
	if len(protocols) == 1 && strings.EqualFold(protocols[0], "h2c") {
		delete(r.Header, "Upgrade")
		return nil
	}
	if len(protocols) > 0 {
		return oauth.ErrAccessDenied.Describe("A change of protocol is not possible here; its calls could not be checked")
	}
	return nil
}

func (d *callDemands) readPost(c *check) *oauth.Error {
	r := c.request
	headers, err := readCallHeaders(r.Header)
	if err != nil {
		return err
	}
	if d.trustsHeaders && !d.strictArguments && headers.tellAll() {
		if err := headers.reachServer(r.Header); err != nil {
			return err
		}
		if err := headers.complete(headers.method); err != nil {
			return err
		}
		c.calls = callBuffers.Get().(*callBuffer)
		c.calls.calls = append(c.calls.calls, headers.call(c.info))
		return nil
	}
	if err := checkMediaType(r.Header); err != nil {
		return err
	}
	c.calls = callBuffers.Get().(*callBuffer)
	c.calls.holdsBody = true
	c.readBody = r.ContentLength <= d.policy.BodyLimit
	if err := c.calls.read(c.writer, r, d.policy.BodyLimit, d.policy.BodyTime); err != nil {
		return err
	}
	messages, batch, malformed := strictjson.AppendMessages(c.calls.messages, c.calls.data, d.strictArguments)
	c.calls.messages = messages
	if malformed != nil {
		return badCall("The body is not JSON-RPC that can be checked: " + malformed.Error())
	}
	if err := headers.check(messages, batch); err != nil {
		return err
	}
	for i := range messages {
		c.calls.calls = appendCalls(c.calls.calls, c.info, &messages[i])
	}
	return nil
}

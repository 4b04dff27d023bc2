package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// manyTokens is how many different ones are sent in turn.
const manyTokens = 10_000

// call is a tool call as an MCP client sends it.
const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"the quick brown fox jumps over the lazy dog","limit":10}}}`

const result = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"nothing found"}],"isError":false}}`

// serveBackend is the child behind Caddy.
func serveBackend() error {
	l, err := newListener()
	if err != nil {
		return err
	}
	go func() { // ends with the process that has started it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return (&http.Server{ReadHeaderTimeout: answerTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, result)
	})}).Serve(l)
}

// guard measures requests through a guard, allowed and refused.
func (b *bench) guard(ctx context.Context, wanted func(string) bool) error {
	backend, err := b.child(ctx, "backend")
	if err != nil {
		return err
	}
	defer backend.stop()
	var behind listening
	if err := backend.says(&behind); err != nil {
		return err
	}
	proxy := "reverse_proxy " + behind.addr()
	bareAddr, policy, broker := freeAddr(), freeAddr(), freeAddr()
	jwt := jwtSites{freeAddr(), freeAddr(), freeAddr(), freeAddr(), freeAddr(), freeAddr()}
	plain, err := b.startCaddy(ctx, "guard-bare", "", fmt.Sprintf("http://%s {\n\t%s\n}\n", bareAddr, proxy), bareAddr)
	if err != nil {
		return err
	}
	defer plain.stop()
	bare := at{plain, bareAddr}
	var sites strings.Builder
	const drop = "request_header -Authorization\n\t"
	const set = drop + "request_header X-MCP-User user-123\n\trequest_header X-MCP-Client client-1\n\trequest_header X-MCP-Scope mcp:read\n\t"
	for _, s := range []struct{ addr, directives string }{{jwt.beside, ""}, {jwt.drop, drop}, {jwt.set, set}} {
		fmt.Fprintf(&sites, "http://%s {\n\t%s%s\n}\n", s.addr, s.directives, proxy)
	}
	for _, s := range []struct{ addr, settings string }{
		{jwt.none, "forward none"},
		{jwt.identity, "forward identity"},
		{jwt.six, "forward identity email name groups"},
		{policy, "forward none\n\t\t\ttool delete_* mcp:admin\n\t\t\ttool search mcp:read"},
	} {
		fmt.Fprintf(&sites, "http://%[1]s {\n\tmcp_auth http://%[1]s {\n\t\tauthorization_server %[2]s {\n\t\t\taudience %[3]s\n\t\t}\n\t\tresource /mcp {\n\t\t\tscopes mcp:read\n\t\t\t%[4]s\n\t\t}\n\t}\n\t%[5]s\n}\n",
			s.addr, b.idp.url, jwtAudience, s.settings, proxy)
	}
	var resources strings.Builder
	for _, forward := range []string{"none", "identity"} {
		fmt.Fprintf(&resources, "\t\tresource /%[1]s {\n\t\t\tscopes mcp:read\n\t\t\tforward %[1]s\n\t\t}\n", forward)
	}
	sites.WriteString(b.brokerSite(broker, resources.String(), proxy))
	c, err := b.startCaddy(ctx, "guard", "\tmcp_auth {\n\t\tstore memory\n\t}\n", sites.String(), jwt.beside)
	if err != nil {
		return err
	}
	defer c.stop()
	if wanted("jwt") {
		if err := b.guardJWT(ctx, c, bare, jwt); err != nil {
			return err
		}
	}
	if wanted("policy") {
		if err := b.guardPolicy(ctx, c, bare, policy); err != nil {
			return err
		}
	}
	if wanted("broker") {
		if err := b.guardBroker(ctx, c, bare, broker); err != nil {
			return err
		}
	}
	if wanted("distinct") {
		return b.distinctTokens(ctx)
	}
	return nil
}

// at is a site of a Caddy.
type at struct {
	*caddy
	addr string
}

const jwtAudience = "https://mcp.example.com/mcp"

// jwtSites are the addresses of the sites with the jwt verifier, and of those that
// they are compared with in the same process: nothing but reverse_proxy, which
// shares their heap and garbage collector, and Caddy's request_header, which drops
// the Authorization header and sets three others.
type jwtSites struct{ beside, drop, set, none, identity, six string }

// sender is an MCP client by what it sends besides the token, at protocol revision
// 2025-11-25 without a session. How many headers that are matters: Go's maps grow
// when the headers that reverse_proxy and the guard add no longer fit, and not in
// steps of one.
type sender struct{ name, headers string }

var (
	npmSDK = sender{"npm SDK", "Connection: keep-alive\r\nMCP-Protocol-Version: 2025-11-25\r\nAccept-Language: *\r\nSec-Fetch-Mode: cors\r\nAccept-Encoding: gzip, deflate\r\n"}
	goSDK  = sender{"Go SDK", "MCP-Protocol-Version: 2025-11-25\r\nAccept-Encoding: gzip\r\n"}
)

func (b *bench) guardJWT(ctx context.Context, c *caddy, bare at, sites jwtSites) error {
	tokens, err := b.idp.accessTokens(manyTokens)
	if err != nil {
		return err
	}
	for _, from := range []sender{npmSDK, goSDK} {
		if err := b.guardJWTFrom(ctx, c, bare, sites, from, tokens); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) guardJWTFrom(ctx context.Context, c *caddy, bare at, sites jwtSites, from sender, tokens []string) error {
	forged := make([]string, len(tokens))
	for i, t := range tokens {
		forged[i] = t[:strings.LastIndexByte(t, '.')] + tokens[(i+1)%len(tokens)][strings.LastIndexByte(tokens[(i+1)%len(tokens)], '.'):]
	}
	garbage := padded("garbage", len(tokens[0]))
	v := func(name, addr string, status int, tokens ...string) variant {
		return proxied(c, from, name, addr, "/mcp", status, tokens...)
	}
	variants := []variant{
		proxied(bare.caddy, from, "bare", bare.addr, "/mcp", 200, tokens...),
		v("no guard, beside guarded sites", sites.beside, 200, tokens...),
		v("no guard, request_header drops one", sites.drop, 200, tokens...),
		v("no guard, and sets three", sites.set, 200, tokens...),
		v("one token, forward none", sites.none, 200, tokens[0]),
		v("10 000 tokens, forward none", sites.none, 200, tokens...),
		v("one token, forward identity", sites.identity, 200, tokens[0]),
		v("10 000 tokens, forward identity", sites.identity, 200, tokens...),
		v("10 000 tokens, six headers", sites.six, 200, tokens...),
		v("refused: no token", sites.none, 401, ""),
		v("refused: garbage", sites.none, 401, garbage),
		v("refused: wrong signature", sites.none, 401, forged...),
	}
	got, err := b.compareProxied(ctx, c, "guard-jwt-"+from.name, variants)
	if err != nil {
		return err
	}
	printTable("Guard with the jwt verifier, RS256, requests as of the "+from.name, "reverse_proxy to the same server in a Caddy of its own, same requests",
		guarded(got, 1, 0, 0), guarded(got, 2, 0, 0), guarded(got, 3, 0, 0),
		guarded(got, 4, 1.00, 0.97), guarded(got, 5, 1.00, 0.97), guarded(got, 6, 1.03, 0.97), guarded(got, 7, 1.03, 0.97),
		guarded(got, 8, 1.08, 0.93), guarded(got, 9, 0.9, 0), guarded(got, 10, 0.9, 0), guarded(got, 11, 0, 0))
	return nil
}

// guardPolicy measures calls of 1 KiB whose tool is looked at.
func (b *bench) guardPolicy(ctx context.Context, c *caddy, bare at, policy string) error {
	tokens, err := b.idp.accessTokens(manyTokens)
	if err != nil {
		return err
	}
	long := strings.Replace(call, "the quick brown fox", strings.Repeat("the quick brown fox ", (1024-len(call))/20+1), 1)
	variants := []variant{
		calling(bare.caddy, npmSDK, "bare", bare.addr, "/mcp", 200, long, tokens...),
		calling(c, npmSDK, "10 000 tokens, tool policy", policy, "/mcp", 200, long, tokens...),
	}
	got, err := b.compareProxied(ctx, c, "guard-policy", variants)
	if err != nil {
		return err
	}
	printTable("Guard with a tool policy, calls of 1 KiB", "reverse_proxy to the same server in a Caddy of its own, same requests", guarded(got, 1, 1.15, 0))
	return nil
}

// guardBroker has as many tokens for one resource and for the other, and the
// tokens of one are all that is used in a comparison.
func (b *bench) guardBroker(ctx context.Context, c *caddy, bare at, addr string) error {
	const perUser = 20 // a chain of access tokens, all of them good
	var rows []row
	for _, part := range []struct {
		forward string
		cpu     float64
	}{{"none", 1.00}, {"identity", 1.03}} {
		path := "/" + part.forward
		s := newAuthServer(addr, path, brokerLogin)
		if err := s.register(); err != nil {
			return err
		}
		tokens, err := s.accessTokens(manyTokens/perUser, perUser)
		if err != nil {
			return err
		}
		variants := []variant{
			proxied(bare.caddy, npmSDK, "bare", bare.addr, path, 200, tokens...),
			proxied(c, npmSDK, "one token, forward "+part.forward, addr, path, 200, tokens[0]),
			proxied(c, npmSDK, "10 000 tokens, forward "+part.forward, addr, path, 200, tokens...),
			proxied(c, npmSDK, "refused: garbage", addr, path, 401, padded("garbage", len(tokens[0]))),
		}
		got, err := b.compareProxied(ctx, c, "guard-broker", variants)
		if err != nil {
			return err
		}
		rows = append(rows, guarded(got, 1, part.cpu, 0.97), guarded(got, 2, part.cpu, 0.97), guarded(got, 3, 0.9, 0))
	}
	printTable("Guard with the broker's tokens, ES256", "reverse_proxy to the same server in a Caddy of its own, same requests", rows...)
	return nil
}

func guarded(got []*measurement, i int, cpu, rate float64) row {
	return row{measurement: got[i], cpu: target{atMost: cpu}, rate: target{atLeast: rate}}
}

// proxied sends calls with the tokens in turn; "" is none.
func proxied(c *caddy, from sender, name, addr, path string, status int, tokens ...string) variant {
	return calling(c, from, name, addr, path, status, call, tokens...)
}

// calling is proxied for another call.
func calling(c *caddy, from sender, name, addr, path string, status int, call string, tokens ...string) variant {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		headers := from.headers
		if token != "" {
			headers += "Authorization: Bearer " + token + "\r\n"
		}
		requests[i] = post(nil, addr, path, headers, "application/json", call)
	}
	return variant{name: name, pid: c.pid(), load: repeat(addr, clients, status, requests...), unlike: len(requests)}
}

// compareProxied compares, and records profiles.
func (b *bench) compareProxied(ctx context.Context, c *caddy, name string, variants []variant) ([]*measurement, error) {
	got, err := b.compare(ctx, variants...)
	if err != nil {
		return nil, err
	}
	for _, v := range variants {
		if v.pid == c.pid() { // the bare one has no profile
			if err := b.profileLoad(ctx, c, name+"-"+v.name, v); err != nil {
				return nil, err
			}
		}
		v.load.close()
	}
	return got, nil
}

// accessTokens signs tokens for as many users.
func (p *idp) accessTokens(n int) ([]string, error) {
	const atOnce = 4
	tokens := make([]string, n)
	errs := make([]error, atOnce)
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				tokens[i], errs[w] = p.accessToken(jwtAudience, i)
			}
		})
	}
	all.Wait()
	return tokens, errors.Join(errs...)
}

// accessTokens signs users in and refreshes until each has a number of tokens.
func (s *authServer) accessTokens(users, each int) ([]string, error) {
	codes, err := s.logins(users, clients)
	if err != nil {
		return nil, err
	}
	out := make([]string, users*each)
	errs := make([]error, clients)
	var all sync.WaitGroup
	for w := range clients {
		all.Go(func() {
			for i := w; i < users && errs[w] == nil; i += clients {
				form := s.codeForm(codes[i])
				for k := 0; k < each && errs[w] == nil; k++ {
					var t tokens
					t, errs[w] = s.token(form)
					out[i*each+k] = t.Access
					form = s.refreshForm(t.Refresh)
				}
			}
		})
	}
	all.Wait()
	return out, errors.Join(errs...)
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
)

const (
	// clients is how many connections a load has unless it says otherwise.
	clients = 16
	// codesPerSlice are prepared before each slice, since codes live for a minute.
	codesPerSlice = 1000
)

// besideSDK measures the broker's endpoints beside those of the TypeScript SDK.
func (b *bench) besideSDK(ctx context.Context, wanted func(string) bool) error {
	caddy, ours, err := b.startBroker(ctx, "sdk-caddy", "memory")
	if err != nil {
		return err
	}
	defer caddy.stop()
	node, theirs, err := b.startSDK(ctx)
	if err != nil {
		return err
	}
	defer node.stop()
	var rows []row
	for _, w := range []struct {
		part, name string
		load       func(*authServer, int) (*load, func(context.Context) error, error)
		atMost     float64
	}{
		{"register", "/register", (*authServer).registerLoad, 0.5},
		{"code", "/token, code", (*authServer).codeLoad, 0.8},
		{"refresh", "/token, refresh", (*authServer).refreshLoad, 0.8},
		{"authorize", "/authorize up to the consent page", (*authServer).authorizeLoad, 1.0},
	} {
		if !wanted(w.part) {
			continue
		}
		base, err := newVariant("SDK "+w.name, node.pid(), theirs, clients, w.load)
		if err != nil {
			return err
		}
		measured, err := newVariant(w.name, caddy.pid(), ours, clients, w.load)
		if err != nil {
			return err
		}
		got, err := b.compare(ctx, base, measured)
		if err != nil {
			return err
		}
		if err := b.profileLoad(ctx, caddy, "sdk-"+w.part, measured); err != nil {
			return err
		}
		base.load.close()
		measured.load.close()
		rows = append(rows, row{measurement: got[1], cpu: target{atMost: w.atMost}})
	}
	printTable("Broker with the memory store", "TypeScript SDK 1.32.2, Express 5, in memory, signing in without a page", rows...)
	return nil
}

func newVariant(name string, pid int, s *authServer, connections int, of func(*authServer, int) (*load, func(context.Context) error, error)) (variant, error) {
	load, prepare, err := of(s, connections)
	if err != nil {
		return variant{}, fmt.Errorf("%s: %w", name, err)
	}
	return variant{name: name, pid: pid, load: load, prepare: prepare}, nil
}

// startBroker starts a Caddy whose broker signs in at our identity provider,
// which costs it less than the hash of a password, and registers a client.
func (b *bench) startBroker(ctx context.Context, name, store string) (*caddy, *authServer, error) {
	addr := freeAddr()
	c, err := b.startCaddy(ctx, name, "\tmcp_auth {\n\t\tstore "+store+"\n\t}\n", b.brokerSite(addr, "\t\tresource /mcp {\n\t\t\tscopes mcp:read\n\t\t}\n", "respond hello"), addr)
	if err != nil {
		return nil, nil, err
	}
	s := newAuthServer(addr, "/mcp", brokerLogin)
	if err := s.register(); err != nil {
		c.stop()
		return nil, nil, err
	}
	return c, s, nil
}

// brokerSite is a site of the Caddyfile.
func (b *bench) brokerSite(addr, resources, behind string) string {
	return fmt.Sprintf(`http://%[1]s {
	mcp_auth http://%[1]s {
		upstream oauth2 {
			authorization_url %[2]s/authorize
			token_url %[2]s/token
			userinfo_url %[2]s/userinfo
			client_id bench
			client_secret secret
		}
		allow any
		rate_limit off
%[3]s	}
	%[4]s
}
`, addr, b.idp.url, resources, behind)
}

// startSDK starts the SDK's router and registers a client.
func (b *bench) startSDK(ctx context.Context) (*process, *authServer, error) {
	script, err := filepath.Abs(filepath.Join(b.npm, "sdk.mjs"))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("node", script)
	cmd.Env = append(cmd.Environ(), "NODE_ENV=production")
	p, err := b.start(ctx, "sdk-node", cmd)
	if err != nil {
		return nil, nil, err
	}
	var at listening
	if err := p.says(&at); err != nil {
		p.stop()
		return nil, nil, err
	}
	s := newAuthServer(at.addr(), "/mcp", sdkLogin)
	if err := s.register(); err != nil {
		p.stop()
		return nil, nil, err
	}
	return p, s, nil
}

func (s *authServer) registerLoad(connections int) (*load, func(context.Context) error, error) {
	return repeat(s.addr, connections, 201, post(nil, s.addr, "/register", "", "application/json", string(registration))), nil, nil
}

const browserHeaders = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: cross-site\r\nUpgrade-Insecure-Requests: 1\r\n"

// authorizeLoad asks for a page, of a broker, or for a redirect.
func (s *authServer) authorizeLoad(connections int) (*load, func(context.Context) error, error) {
	request := get(s.addr, s.authorizeTarget(), browserHeaders)
	return newLoad(s.addr, connections, func(int) conversation {
		return conversation{
			next: func([]byte) []byte { return request },
			got: func(status int, body []byte) error {
				if status == 302 || status == 200 && bytes.Contains(body, []byte("/mcp-auth/consent")) {
					return nil
				}
				return fmt.Errorf("/authorize: %d: %.300s", status, body)
			},
		}
	}), nil, nil
}

// codeLoad redeems codes that were prepared.
func (s *authServer) codeLoad(connections int) (*load, func(context.Context) error, error) {
	var codes []string
	var used atomic.Int64
	prepare := func(context.Context) (err error) {
		codes, err = s.logins(codesPerSlice, clients)
		used.Store(0)
		return err
	}
	return newLoad(s.addr, connections, func(int) conversation {
		return conversation{
			next: func(buf []byte) []byte {
				i := int(used.Add(1)) - 1
				if i >= len(codes) {
					return nil
				}
				return post(buf, s.addr, "/token", "", formType, s.codeForm(codes[i]))
			},
			got: wantStatus(200),
		}
	}), prepare, nil
}

// refreshLoad has one grant on each connection, refreshed again and again.
func (s *authServer) refreshLoad(connections int) (*load, func(context.Context) error, error) {
	codes, err := s.logins(connections, clients)
	if err != nil {
		return nil, nil, err
	}
	refresh := make([]string, connections)
	for i, code := range codes {
		t, err := s.token(s.codeForm(code))
		if err != nil {
			return nil, nil, err
		}
		refresh[i] = t.Refresh
	}
	return newLoad(s.addr, connections, func(i int) conversation {
		return conversation{
			next: func(buf []byte) []byte { return post(buf, s.addr, "/token", "", formType, s.refreshForm(refresh[i])) },
			got: func(status int, body []byte) error {
				_, rest, ok := bytes.Cut(body, []byte(`"refresh_token":"`))
				token, _, end := bytes.Cut(rest, []byte(`"`))
				if status != 200 || !ok || !end {
					return fmt.Errorf("refresh: %d: %.300s", status, body)
				}
				refresh[i] = string(token)
				return nil
			},
		}
	}), nil, nil
}

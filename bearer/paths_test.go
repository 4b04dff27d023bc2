package bearer_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// TestPathReadings: which requests belong to the resource at /mcp. 401 is
// guarded, 400 refused as unclear, 200 not ours.
func TestPathReadings(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, guardResource()))
	for status, paths := range map[int][]string{
		401: {
			"/mcp", "/mcp/", "/mcp/tools", "/MCP", "/Mcp/Tools", "/mcp?x=/../y", "/mcp//tools", "/mcp/.hidden", "/mcp/...",
			"/mcp/caf%C3%A9", "/mcp/a%20b", "/mcp/what%3f", "/mcp/100%25", "/mcp/a!b", "/mcp/(x)", "/mcp/a+b@c:d",
			"http://mcp.example.com/mcp",
		},
		400: {
			// doubled slashes and escapes of the resource itself
			"//mcp", "///mcp", "//mcp/x", "/%6dcp", "/%6Dcp/x", "/%256dcp", "/%25256dcp", "/%4dCP", "/%4D%43%50",
			// dot segments
			"/mcp/.", "/mcp/..", "/mcp/../x", "/mcp/./x", "/mcp/x/..", "/./mcp", "/x/../mcp", "//mcp/../x", "/x/../MCP", "/../mcp", "/x/./../mcp/y",
			"/x/%2e%2e/mcp", "/x/%2E./mcp", "/x/.%2e/mcp", "/x/%252e%252e/mcp", "/mcp/%2e%2e/x", "/%2e/mcp", "/a/b/../../mcp",
			// encoded slashes
			"/mcp%2fx", "/mcp%2Fx", "/mcp/a%2fb", "/%2fmcp", "/x%2f..%2fmcp", "/x/..%2fmcp", "/x%2f../mcp", "/mcp%252fx", "/mcp/a%252Fb",
			"/x%252f..%252fmcp", "/a%2fb/../mcp", "/x%2f%2e%2e%2fmcp",
			// parameters
			"/mcp;x", "/mcp;", "/mcp;x/y", "/mcp/;x", "/mcp/a;b=c", "/;/mcp", "/;x/mcp", "/x/..;/mcp", "/x/..;a=b/mcp", "/mcp%3bx", "/mcp%253bx",
			"/mcp/a%3bb", "/x;/../mcp", "/x/.;/../mcp", "/x/%2e%2e;/mcp",
			// backslashes
			"/mcp%5cx", "/mcp%5Cx", "/x%5c..%5cmcp", "/x/..%5cmcp", "/%5cmcp", "/mcp%255cx", "/x/..%255c..%255cmcp", "/mcp/a%5cb",
			// control characters and what ends a path
			"/mcp%00", "/mcp%00.js", "/mcp%0a", "/mcp%0d%0ax", "/mcp/%00", "/mcp/a%7fb", "/m%09cp", "/mcp%3fx", "/mcp%23x", "/mcp%253fx",
			// absolute forms
			"http://mcp.example.com//mcp", "http://mcp.example.com/x/../mcp",
			// an opaque target has no path to look at, and would be passed on as one
			"x:%2fmcp", "x:mcp", "x:index.html",
			// endless
			"/" + strings.Repeat("a", 20000) + "%2fb", "/" + strings.Repeat("a", 40000) + "%2fb",
			"/%" + strings.Repeat("25", 100) + "6dcp",
		},
		200: {
			"/", "/mcpfoo", "/mcp-2", "/mcp.js", "/mcp~", "/xmcp", "/x/mcp", "/m/cp", "/index.html", "/x/../y", "/x%2fy", "/a;b", "/a%5cb", "/%00",
			"/x%2fmcp", "/x;/mcp", "/mcpfoo/../bar", "/%6dcpfoo", "/static/caf%C3%A9.js", "//", "//x", "/?/mcp", "/x?y=/../mcp", "/%25",
			"/.well-known/other", "/..mcp", "/...", "/-mcp",
			"/" + strings.Repeat("a", 40000), "/" + strings.Repeat("a", 8000) + "%2fb", "/" + strings.Repeat("%25", 1000) + "6dcp",
		},
	} {
		for _, path := range paths {
			name := path
			if len(name) > 60 {
				name = name[:60] + "…"
			}
			if got := ask(t, server, "POST "+path+" HTTP/1.1"); got.Status != status {
				t.Errorf("%s: %d %s, want %d", name, got.Status, got.Description, status)
			}
		}
	}
}

// TestPathFoldsOutsideASCII: servers that fold case take the Kelvin sign for k
// and the long s for s.
func TestPathFoldsOutsideASCII(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, bearer.Resource{Identifier: guardIdentifier, Path: "/desk"}))
	for _, path := range []string{"/des%E2%84%AA", "/de%C5%BFk", "/de%25C5%25BFk/x"} {
		if got := ask(t, server, "POST "+path+" HTTP/1.1"); got.Status != 400 {
			t.Errorf("%s: %d, want 400", path, got.Status)
		}
	}
}

// TestPathWholeSite: everything is guarded, and unclear paths are refused even
// though they belong to nobody else.
func TestPathWholeSite(t *testing.T) {
	for _, sitePath := range []string{"", "/"} {
		server := serveGuarded(t, newGuard(t, guardTokens{}, bearer.Resource{Identifier: guardIdentifier, Path: sitePath}))
		for path, want := range map[string]int{
			"/": 401, "/mcp": 401, "/x": 401, "//x": 401, "/caf%C3%A9": 401, "http://mcp.example.com": 401,
			"/x/../y": 400, "/a;b": 400, "/a%2fb": 400, "/a%5cb": 400, "/%00": 400, "x:y": 400,
		} {
			if got := ask(t, server, "POST "+path+" HTTP/1.1"); got.Status != want {
				t.Errorf("path %q, %s: %d, want %d", sitePath, path, got.Status, want)
			}
		}
	}
}

// TestPathReadingsDisagree: a path that is one resource to one reader and
// another to the next is refused.
func TestPathReadingsDisagree(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{},
		bearer.Resource{Identifier: "https://mcp.example.com", Path: "/"},
		bearer.Resource{Identifier: guardIdentifier, Path: "/mcp"},
		bearer.Resource{Identifier: "https://mcp.example.com/mcp/in", Path: "/mcp/in"}))
	for path, want := range map[string]int{
		"/x": 401, "//x": 401, "/mcp//x": 401, "//mcp": 400, "/%6dcp": 400, "/mcp//in": 400, "/mcp/%69n": 400, "/mcp/in//x": 401,
	} {
		if got := ask(t, server, "POST "+path+" HTTP/1.1"); got.Status != want {
			t.Errorf("%s: %d, want %d", path, got.Status, want)
		}
	}
}

// FuzzPaths: no path that a server behind could read as the resource passes.
// The readings are computed here in another way than in the guard: all
// combinations of one choice a stage, as real servers do it.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{
		"/mcp", "/MCP/x", "//mcp", "/x/../mcp", "/%6dcp", "/%256dcp", "/mcp;x", "/mcp%5cx", "/x/..;/mcp", "/x%2f..%2fmcp", "/mcpfoo",
		"/a%2fb/../mcp", "/mcp%00.js", "/x/..%255c..%255cmcp", "/mcp?q", "x:mcp", "/m%09cp", "/;/mcp", "/x/.;/../mcp", "/../mcp", "*",
	} {
		f.Add(seed)
	}
	guard := newGuard(f, guardTokens{}, guardResource())
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		request := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{}}
		recorder := httptest.NewRecorder()
		decision, ok := guard.Check(recorder, request, nil)
		switch {
		case ok && decision.Guarded:
			t.Errorf("%q was admitted without a token", target)
		case !ok && recorder.Code != 400 && recorder.Code != 401:
			t.Errorf("%q: status %d", target, recorder.Code)
		}
		if reading, touches := slowlyTouches(u.EscapedPath()); touches && ok {
			t.Errorf("%q passes, but can be read as %q", target, reading)
		}
		// What is plainly another path must not be taken for the resource.
		if isPlainlyOther(target) && !ok {
			t.Errorf("%q is refused: %d %s", target, recorder.Code, recorder.Body)
		}
	})
}

func isPlainlyOther(target string) bool {
	for i, segment := range strings.Split(target, "/") {
		if i == 0 && segment != "" || i > 0 && strings.Trim(segment, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || segment == "" && i > 0 {
			return false
		}
		if i == 1 && segment == "mcp" {
			return false
		}
	}
	return strings.HasPrefix(target, "/")
}

// slowlyTouches returns the reading of a raw path that lies in /mcp, if any.
func slowlyTouches(raw string) (string, bool) {
	decodings := []string{raw}
	for range 3 {
		decodings = append(decodings, slowDecode(decodings[len(decodings)-1]))
	}
	for _, p := range decodings {
		for choice := range 16 {
			reading := p
			if choice&1 != 0 {
				reading = strings.Join(strings.Split(reading, `\`), "/")
			}
			segments := strings.Split(reading, "/")
			if choice&2 != 0 {
				for i := range segments {
					segments[i], _, _ = strings.Cut(segments[i], ";")
				}
			}
			if choice&4 != 0 {
				for i := range segments {
					segments[i], _, _ = strings.Cut(segments[i], "\x00")
				}
			}
			if choice&8 != 0 {
				segments = slowResolve(segments)
			}
			for len(segments) > 0 && segments[0] == "" {
				if choice&8 == 0 && len(segments) > 1 && segments[1] == "" {
					break // not merged
				}
				segments = segments[1:]
			}
			if len(segments) > 0 && strings.EqualFold(segments[0], "mcp") {
				return strings.Join(segments, "/"), true
			}
		}
	}
	return "", false
}

// slowResolve resolves dot segments and drops empty ones, with a stack.
func slowResolve(segments []string) (stack []string) {
	for _, segment := range segments {
		switch segment {
		case "", ".":
		case "..":
			if len(stack) > 0 {
				stack = slices.Delete(stack, len(stack)-1, len(stack))
			}
		default:
			stack = append(stack, segment)
		}
	}
	return stack
}

// slowDecode decodes one level, leaving what is not hexadecimal.
func slowDecode(p string) string {
	parts := strings.Split(p, "%")
	for i, part := range parts[1:] {
		if len(part) >= 2 {
			if decoded, err := url.PathUnescape("%" + part[:2]); err == nil {
				parts[i+1] = decoded + part[2:]
				continue
			}
		}
		parts[i+1] = "%" + part
	}
	return strings.Join(parts, "")
}

func BenchmarkPathReadings(b *testing.B) {
	guard := newGuard(b, guardTokens{}, guardResource())
	for name, path := range map[string]string{
		"escaped": "/static/caf%C3%A9.js", "odd": "/a%2fb;c/../d", "endless": "/" + strings.Repeat("%2525255c..;%2509/", 225),
	} {
		b.Run(name, func(b *testing.B) {
			request := httptest.NewRequest(http.MethodGet, path, nil)
			b.ReportAllocs()
			for b.Loop() {
				guard.Check(httptest.NewRecorder(), request, nil)
			}
		})
	}
}

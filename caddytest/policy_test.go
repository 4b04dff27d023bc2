package caddytest_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// deleting is a call that the tokens of these tests may not make.
const deleting = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_note","arguments":{"name":"todo"}}}`

const reading = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"delete_note"}}}`

// toolPolicy asks for a scope for one tool.
const toolPolicy = `resource /mcp {
			scopes mcp:read
			tool delete_* mcp:admin
			%s
		}`

func loadPolicy(t *testing.T, settings string) (*caddyInstance, http.Header, *backend) {
	t.Helper()
	c, idp, b := loadGuarded(t, "", fmt.Sprintf(toolPolicy, settings))
	header := bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"}))
	header.Set("Content-Type", "application/json")
	return c, header, b
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPolicySmuggling tries to get a call past the policy. The server behind must
// see none of them.
func TestPolicySmuggling(t *testing.T) {
	c, header, b := loadPolicy(t, "")
	call := func(params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":` + params + `}`
	}
	for _, row := range []struct {
		name, body string
		headers    map[string]string
		status     int
	}{
		{"plain", deleting, nil, 403},
		{"escaped name", call(`{"name":"\u0064elete_note"}`), nil, 403},
		{"escaped members", `{"jsonrpc":"2.0","id":1,"\u006dethod":"tools\/call","par\u0061ms":{"n\u0061me":"delete_note"}}`, nil, 403},
		{"params first", `{"params":{"name":"delete_note"},"method":"tools/call","id":1,"jsonrpc":"2.0"}`, nil, 403},
		{"notification", `{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete_note"}}`, nil, 403},
		{"id null", `{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"delete_note"}}`, nil, 403},
		{"with a result", `{"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call","params":{"name":"delete_note"}}`, nil, 403},
		{"task", call(`{"name":"delete_note","task":{"ttl":1}}`), nil, 403},
		{"name twice", call(`{"name":"echo","name":"delete_note"}`), nil, 400},
		{"name twice, the other way", call(`{"name":"delete_note","name":"echo"}`), nil, 400},
		{"name twice, one escaped", call(`{"name":"echo","\u006eame":"delete_note"}`), nil, 400},
		{"Name", call(`{"name":"echo","Name":"delete_note"}`), nil, 400},
		{"NAME alone", call(`{"NAME":"delete_note"}`), nil, 400},
		{"method twice", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"delete_note"}}`, nil, 400},
		{"Method", `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"delete_note"}}`, nil, 400},
		{"method as an array", `{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"delete_note"}}`, nil, 400},
		{"params twice", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"params":{"name":"delete_note"}}`, nil, 400},
		{"params with a long s", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"paramſ":{"name":"delete_note"}}`, nil, 400},
		{"params by position", call(`["delete_note"]`), nil, 400},
		{"params as a string", call(`"{\"name\":\"delete_note\"}"`), nil, 400},
		{"name as an object", call(`{"name":{"name":"delete_note"}}`), nil, 400},
		{"name with NUL behind it", call(`{"name":"delete_note\u0000"}`), nil, 400},
		{"member with NUL behind it", call(`{"name":"echo","name\u0000":"delete_note"}`), nil, 400},
		{"name with half a surrogate pair", call(`{"name":"delete_note\ud800"}`), nil, 400},
		{"name in overlong UTF-8", call("{\"name\":\"\xc1\xa4elete_note\"}"), nil, 400},
		{"byte order mark", "\ufeff" + deleting, nil, 400},
		{"UTF-16", utf16Text(deleting), nil, 400},
		{"UTF-16 said so", utf16Text(deleting), map[string]string{"Content-Type": "application/json; charset=utf-16"}, 415},
		{"two documents", reading + deleting, nil, 400},
		{"two lines", reading + "\n" + deleting, nil, 400},
		{"NUL between two documents", reading + "\x00" + deleting, nil, 400},
		{"comments", `{"jsonrpc":"2.0","id":1,"method":"ping"/*,"x":"*/,"method":"tools/call","params":{"name":"delete_note"}}`, nil, 400},
		{"comma at the end", strings.TrimSuffix(deleting, "}") + ",}", nil, 400},
		{"single quotes", strings.ReplaceAll(deleting, `"`, "'"), nil, 400},
		{"NaN", call(`{"name":"delete_note","arguments":{"x":NaN}}`), nil, 400},
		{"no jsonrpc", `{"id":1,"method":"tools/call","params":{"name":"delete_note"}}`, nil, 400},
		{"deep before the name", call(`{"arguments":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `,"name":"delete_note"}`), nil, 400},
		{"deep without an end", strings.Repeat(`{"a":`, 100000), nil, 400},
		{"huge number for an id", `{"jsonrpc":"2.0","id":1e99999,"method":"tools/call","params":{"name":"delete_note"}}`, nil, 403},
		{"batch", "[" + reading + "," + deleting + "]", nil, 403},
		{"batch in a batch", "[[" + deleting + "]]", nil, 400},
		{"batch as an object", `{"0":` + deleting + `}`, nil, 400},
		{"empty batch", "[]", nil, 400},
		{"batch of 101", "[" + strings.Repeat(reading+",", 100) + deleting + "]", nil, 400},
		{"gzip", gzipped(t, deleting), map[string]string{"Content-Encoding": "gzip"}, 415},
		{"gzip not said", gzipped(t, deleting), nil, 400},
		{"said gzip, and is not", deleting, map[string]string{"Content-Encoding": "gzip"}, 415},
		{"text", deleting, map[string]string{"Content-Type": "text/plain"}, 415},
		{"multipart", deleting, map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, 415},
		{"form", "jsonrpc=2.0", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
		{"UTF-7", deleting, map[string]string{"Content-Type": "application/json; charset=utf-7"}, 415},
		{"too large, the call at the end", `{"x":"` + strings.Repeat("x", 1<<20) + `",` + deleting[1:], nil, 413},
		{"header says another tool", deleting, map[string]string{"Mcp-Method": "tools/call", "Mcp-Name": "echo", "Mcp-Protocol-Version": "2026-07-28"}, 400},
		{"header says another method", deleting, map[string]string{"Mcp-Method": "ping", "Mcp-Protocol-Version": "2026-07-28"}, 400},
		{"header says another tool, no revision", deleting, map[string]string{"Mcp-Name": "echo"}, 400},
		{"headers are missing", deleting, map[string]string{"Mcp-Protocol-Version": "2026-07-28"}, 400},
		{"headers tell the truth", deleting, map[string]string{"Mcp-Method": "tools/call", "Mcp-Name": "delete_note", "Mcp-Protocol-Version": "2026-07-28"}, 403},
		{"WebSocket", "", map[string]string{"Upgrade": "websocket", "Connection": "Upgrade"}, 403},
		{"nothing", "", nil, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := maps.Clone(header)
			for name, value := range row.headers {
				h[name] = []string{value}
			}
			resp, body := c.send("POST", "/mcp", h, row.body)
			if reached := len(b.take()); resp.StatusCode != row.status || reached > 0 {
				t.Errorf("%d %s, want %d; %d requests reached the server", resp.StatusCode, body, row.status, reached)
			}
			if challenge := resp.Header.Get("WWW-Authenticate"); (challenge != "") != strings.Contains(body, "insufficient_scope") {
				t.Errorf("%s with the challenge %q", body, challenge)
			}
		})
	}
	for name, method := range map[string]string{"GET with a body": "GET", "DELETE with a body": "DELETE", "PUT": "PUT", "CONNECT": "CONNECT"} {
		resp, body := c.send(method, "/mcp", header, deleting)
		if len(b.take()) > 0 || resp.StatusCode < 400 {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

// utf16Text is text in UTF-16, little endian, without a mark.
func utf16Text(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.Write([]byte{text[i], 0})
	}
	return b.String()
}

// TestPolicyFraming plays with how a body is sent.
func TestPolicyFraming(t *testing.T) {
	c, header, b := loadPolicy(t, "")
	head := "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: " + header.Get("Authorization") + "\r\n"
	chunks := func(body string) string {
		return fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 7, body[:7], len(body)-7, body[7:])
	}
	for _, row := range []struct {
		name, request string
		status        string
		reached       int
	}{
		{"chunked", head + "Transfer-Encoding: chunked\r\n\r\n" + chunks(reading), " 200 ", 1},
		{"chunked, forbidden", head + "Transfer-Encoding: chunked\r\n\r\n" + chunks(deleting), " 403 ", 0},
		{"chunked, with a length as well", head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunks(deleting), " 4", 0},
		{"chunked twice", head + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunks(deleting), " 501 ", 0},
		{"gzip as a transfer encoding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks(gzipped(t, deleting)), " 501 ", 0},
		{"two lengths", head + fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n\r\n", len(deleting)) + deleting, " 400 ", 0},
		{"length too small", head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(reading)) + reading + deleting, " 200 ", 1},
		{"length cuts the call", head + "Content-Length: 20\r\n\r\n" + deleting, " 400 ", 0},
		{"length too large", head + "Content-Length: 4096\r\n\r\n" + reading, " 400 ", 0},
		{"expects 100", head + fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(reading)) + reading, " 100 ", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(c.Port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, row.request); err != nil {
				t.Fatal(err)
			}
			if row.name == "length too large" {
				// Caddy takes the end for a client that has gone, in the other rows too.
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			answer, _ := io.ReadAll(conn)
			line, _, _ := strings.Cut(string(answer), "\r\n")
			b.mu.Lock()
			bodies := b.bodies
			b.mu.Unlock()
			if reached := len(b.take()); !strings.Contains(line, row.status) || reached != row.reached {
				t.Errorf("%s, want %s; %d requests reached the server", line, row.status, reached)
			}
			if row.reached == 1 && len(bodies) == 1 && string(bodies[0]) != reading {
				t.Errorf("the server behind got %q", bodies[0])
			}
		})
	}
}

// TestPolicyLeavesTheRestAlone holds what passes, byte for byte.
func TestPolicyLeavesTheRestAlone(t *testing.T) {
	c, header, b := loadPolicy(t, "")
	for name, body := range map[string]string{
		"call":                      reading,
		"white space":               "\r\n " + strings.ReplaceAll(reading, ":", " :\t") + "\n",
		"batch":                     "[" + reading + " , " + reading + "]",
		"response":                  `{"jsonrpc":"2.0","id":"1","result":{"method":"tools/call"}}`,
		"notification":              `{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		"arguments with doubles":    strings.Replace(reading, `"text"`, `"text":"\ud800","Text":1e400,"text"`, 1),
		"almost as large as it may": strings.Replace(reading, "delete_note", strings.Repeat("é", 1<<19-100), 1),
	} {
		resp, text := c.send("POST", "/mcp", header, body)
		b.mu.Lock()
		same := len(b.bodies) == 1 && string(b.bodies[0]) == body
		b.mu.Unlock()
		if requests := b.take(); resp.StatusCode != 200 || !same || requests[0].ContentLength != int64(len(body)) {
			t.Errorf("%s: %d %s, the same %t", name, resp.StatusCode, text, same)
		}
	}
	for _, method := range []string{"GET", "DELETE", "HEAD"} {
		if resp, text := c.send(method, "/mcp", header, ""); resp.StatusCode != 200 || len(b.take()) != 1 {
			t.Errorf("%s: %d %s", method, resp.StatusCode, text)
		}
	}
}

func TestPolicySettings(t *testing.T) {
	webSocket := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Content-Type": "application/json"}
	modern := func(name string) map[string]string {
		return map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
	}
	for _, row := range []struct {
		name, settings, body string
		headers              map[string]string
		status               int
	}{
		{"body_limit", "body_limit 100B", reading, nil, 413},
		{"body_limit, within", "body_limit 200B", reading, nil, 200},
		{"upgrade allow", "upgrade allow", reading, webSocket, 200},
		{"upgrade allow checks the body", "upgrade allow", deleting, webSocket, 403},
		{"mcp_headers trusted", "mcp_headers trusted", "not read", modern("echo"), 200},
		{"mcp_headers trusted, forbidden", "mcp_headers trusted", "not read", modern("delete_note"), 403},
		{"mcp_headers trusted, the body is of an old revision", "mcp_headers trusted", deleting, map[string]string{"Mcp-Method": "tools/call", "Mcp-Name": "echo"}, 400},
		{"mcp_headers trusted, when reads arguments", "mcp_headers trusted\nwhen size(arguments) < 5", deleting, modern("echo"), 400},
		{"method", "method tools/* mcp:tools", reading, nil, 403},
		{"prompt", "prompt p* mcp:prompts", `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}`, nil, 403},
		{"uri", "uri note:///private/* mcp:private", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"note:///x/../private/a"}}`, nil, 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, header, b := loadPolicy(t, row.settings)
			for name, value := range row.headers {
				header.Set(name, value)
			}
			resp, body := c.send("POST", "/mcp", header, row.body)
			if reached := len(b.take()); resp.StatusCode != row.status || reached > 0 != (row.status == 200) {
				t.Errorf("%d %s, want %d; %d requests reached the server", resp.StatusCode, body, row.status, reached)
			}
		})
	}
}

// TestPolicyBodySurvivesARetry: a server that is down takes nothing of the body
// with it, and trailers come along.
func TestPolicyBodySurvivesARetry(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	site := fmt.Sprintf(guardedSite, "", idp.URL, fmt.Sprintf(toolPolicy, ""), fmt.Sprintf("localhost:%d %s {\n\t\tlb_policy first\n\t\tlb_retries 2\n\t\tfail_duration 10s\n\t}", freePort(t), b.addr()))
	c := loadCaddy(t, site)
	header := bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"}))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Origin+"/mcp", io.MultiReader(strings.NewReader(reading)))
	if err != nil {
		t.Fatal(err)
	}
	header.Set("Content-Type", "application/json")
	request.Header, request.Trailer = header, http.Header{"X-Checksum": {"1"}}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b.mu.Lock()
	same := len(b.bodies) == 1 && string(b.bodies[0]) == reading
	b.mu.Unlock()
	if requests := b.take(); resp.StatusCode != 200 || !same || requests[0].ContentLength != -1 || requests[0].Trailer.Get("X-Checksum") != "1" {
		t.Errorf("%d, the same %t, %+v", resp.StatusCode, same, requests)
	}
}

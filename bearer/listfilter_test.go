package bearer_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// filteringResource is one where the token of newFilter may call what does not
// begin with "x".
func filteringResource() bearer.Resource {
	resource := guardResource()
	resource.FilterLists = true
	resource.Policy.Tools = []bearer.NameRule{{Pattern: "x*", Scopes: []string{"x"}}}
	resource.Policy.Prompts = []bearer.NameRule{{Pattern: "x*", Scopes: []string{"x"}}}
	resource.Policy.URIs = []bearer.NameRule{{Pattern: "x:*", Scopes: []string{"x"}}}
	return resource
}

func newFilter(t testing.TB, backend http.HandlerFunc) http.Handler {
	t.Helper()
	guard := newGuard(t, guardTokens{"a": guardToken("mcp:read"), "all": guardToken("mcp:read", "x")}, filteringResource())
	return bearer.Middleware(guard, bearer.MiddlewareOptions{})(backend)
}

// filtered is the answer of a backend that writes the parts one by one, as the
// client of a token sees it.
func filtered(t testing.TB, token, contentType string, header http.Header, parts ...string) *httptest.ResponseRecorder {
	t.Helper()
	return filteredBy(newFilter(t, partsBackend), token, contentType, header, parts...)
}

type partsKey struct{}

// partsBackend answers with what filteredBy has put into the context.
func partsBackend(w http.ResponseWriter, r *http.Request) {
	for _, part := range r.Context().Value(partsKey{}).([]string) {
		if _, err := io.WriteString(w, part); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func filteredBy(filter http.Handler, token, contentType string, header http.Header, parts ...string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	for name, values := range header {
		rec.Header()[name] = slices.Clone(values)
	}
	if contentType != "" {
		rec.Header().Set("Content-Type", contentType)
	}
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	filter.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), partsKey{}, parts)))
	return rec
}

const (
	bothTools = `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"xb"},{"name":"c"}],"nextCursor":"n"}}`
	oneTool   = `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"c"}],"nextCursor":"n"}}`
)

func TestListsInJSON(t *testing.T) {
	for _, row := range []struct{ rule, body, want string }{
		{"tools", bothTools, oneTool},
		{"prompts", `{"result":{"prompts":[{"name":"xa"}]}}`, `{"result":{"prompts":[]}}`},
		{"resources", `{"result":{"resources":[{"uri":"x:1"},{"uri":"y:1"}]}}`, `{"result":{"resources":[{"uri":"y:1"}]}}`},
		{"templates", `{"result":{"resourceTemplates":[{"uriTemplate":"x:{id}"},{"uriTemplate":"y:{id}"}]}}`, `{"result":{"resourceTemplates":[{"uriTemplate":"y:{id}"}]}}`},
		{"a batch", `[` + bothTools + `,{"id":2,"result":{}},` + bothTools + `]`, `[` + oneTool + `,{"id":2,"result":{}},` + oneTool + `]`},
		{"white space and a byte order mark", "\ufeff\r\n " + bothTools + "\n", oneTool + "\n"},
		{"members in odd places", `{"result": { "x":[[{}]], "tools" : [ {"a":{"name":"xno"},"name" : "a"} , {"name":"xb","d":"]}\\\""} ] }, "id":1}`, `{"result": { "x":[[{}]], "tools" : [{"a":{"name":"xno"},"name" : "a"}] }, "id":1}`},
		{"escapes in names", `{"\u0072esult":{"too\u006cs":[{"n\u0061me":"\u0078b"},{"name":"a"}]}}`, `{"\u0072esult":{"too\u006cs":[{"name":"a"}]}}`},
		{"other case", `{"Result":{"TOOLS":[{"NAME":"xb"}]}}`, `{"Result":{"TOOLS":[]}}`},
		{"letters that fold to ours", "{\"re\u017fult\":{\"tool\u017f\":[{\"name\":\"xb\"}]}}", "{\"re\u017fult\":{\"tool\u017f\":[]}}"},
		{"twice the same member", `{"result":{},"result":{"tools":[],"tools":[{"name":"xb"}]}}`, `{"result":{},"result":{"tools":[],"tools":[]}}`},
		{"two names", `{"result":{"tools":[{"name":"a","name":"xb"},{"name":"xb","name":"a"},{"name":"a","Name":"xb"}]}}`, `{"result":{"tools":[]}}`},
		{"no name", `{"result":{"tools":[{},"xb",null,{"name":1},["name"],{"name":"a"}]}}`, `{"result":{"tools":[{"name":"a"}]}}`},
		{"nothing left out", `{"result":{"tools":[ {"name":"a"} ]}} `, `{"result":{"tools":[ {"name":"a"} ]}} `},
		{"a call's result", `{"result":{"content":[{"type":"text","text":"{\"tools\":[{\"name\":\"xb\"}]}"}]}}`, `{"result":{"content":[{"type":"text","text":"{\"tools\":[{\"name\":\"xb\"}]}"}]}}`},
		{"capabilities", `{"result":{"capabilities":{"tools":{"listChanged":true}}}}`, `{"result":{"capabilities":{"tools":{"listChanged":true}}}}`},
		{"an error", `{"error":{"code":-32601,"message":"no tools"}}`, `{"error":{"code":-32601,"message":"no tools"}}`},
		{"a list that is none", `{"result":{"tools":"x","prompts":7,"resources":null,"resourceTemplates":{}}}`, `{"result":{"tools":"x","prompts":7,"resources":null,"resourceTemplates":{}}}`},
		{"no JSON, and no list", `{"result":`, `{"result":`},
		{"text", `tools: xb`, `tools: xb`},
		{"empty", ``, ``},
		{"white space alone", " \n ", " \n "},
	} {
		for _, contentType := range []string{"application/json", "application/json; charset=utf-8", "", "text/plain", "application/octet-stream"} {
			// In one piece, and byte by byte.
			for _, parts := range [][]string{{row.body}, strings.Split(row.body, "")} {
				rec := filtered(t, "a", contentType, nil, parts...)
				if got := rec.Body.String(); rec.Code != 200 || strings.TrimLeft(got, "\ufeff \r\n") != strings.TrimLeft(row.want, " \n") {
					t.Errorf("%s, %q: %d %s, want %s", row.rule, contentType, rec.Code, got, row.want)
				}
			}
		}
		if rec := filtered(t, "all", "application/json", nil, row.body); rec.Body.String() != row.body && row.rule != "no name" {
			t.Errorf("%s: a token that may call all sees %s", row.rule, rec.Body)
		}
	}
}

func TestListsThatCannotBeRead(t *testing.T) {
	for _, row := range []struct {
		rule, contentType string
		header            http.Header
		parts             []string
	}{
		{"encoded", "application/json", http.Header{"Content-Encoding": {"gzip"}}, []string{gzipped(bothTools)}},
		{"encoded, events", "text/event-stream", http.Header{"Content-Encoding": {"br"}}, []string{"data: x\n\n"}},
		{"encoded twice", "application/json", http.Header{"Content-Encoding": {"identity", "gzip"}}, []string{gzipped(bothTools)}},
		{"UTF-16 that says so", "application/json; charset=utf-16le", nil, []string{wide(bothTools)}},
		{"UTF-16", "application/json", nil, []string{wide(bothTools)}},
		{"UTF-16 with its mark", "application/json", nil, []string{"\xff\xfe" + wide(bothTools)}},
		{"UTF-16, byte by byte", "application/problem+json", nil, strings.Split(wide(bothTools), "")},
		{"events of another charset", "text/event-stream; charset=utf-7", nil, []string{"data: x\n\n"}},
		{"a charset that cannot be read", "application/json; charset=\"utf-16", nil, []string{"{}"}},
		{"no UTF-8", "application/json", nil, []string{"{\"result\":{\"x\":\"\x80\"}}"}},
		{"JSON that is cut", "application/json", nil, []string{bothTools[:len(bothTools)-1]}},
		{"two messages", "application/json", nil, []string{bothTools, "\n", bothTools}},
		{"larger than 16 MiB", "application/json", http.Header{"Content-Length": {strconv.Itoa(17 << 20)}}, []string{`{"result":{"x":"`, strings.Repeat(" ", 17<<20), `"}}`}},
	} {
		t.Run(row.rule, func(t *testing.T) {
			header := http.Header{"Etag": {`"e"`}, "Mcp-Session-Id": {"s"}}
			for name, values := range row.header {
				header[name] = values
			}
			rec := filtered(t, "a", row.contentType, header, row.parts...)
			if rec.Code != 502 || !strings.Contains(rec.Body.String(), `"error":"bad_gateway"`) || strings.Contains(rec.Body.String(), "xb") {
				t.Errorf("%d %.200s", rec.Code, rec.Body)
			}
			if h := rec.Header(); h.Get("Content-Encoding") != "" || h.Get("Etag") != "" || h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != strconv.Itoa(rec.Body.Len()) {
				t.Errorf("headers %v", h)
			}
		})
	}
}

// TestWideEvents: the header of an event stream is sent before its events.
func TestWideEvents(t *testing.T) {
	if rec := filtered(t, "a", "text/event-stream", nil, wide("data: "+bothTools+"\n\n")); strings.Contains(rec.Body.String(), "x") {
		t.Errorf("passed: %q", rec.Body)
	}
}

// wide is ASCII in UTF-16LE.
func wide(text string) string { return strings.Join(strings.Split(text, ""), "\x00") + "\x00" }

func gzipped(text string) string {
	var b strings.Builder
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func TestListsAreAskedForPlain(t *testing.T) {
	handler := newFilter(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" || r.Header.Get("Range") != "" {
			t.Errorf("the server is asked for %v", r.Header)
		}
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, bothTools[60:])
	})
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.Header = http.Header{"Authorization": {"Bearer a"}, "Accept-Encoding": {"gzip, br"}, "Range": {"bytes=60-"}}
	handler.ServeHTTP(rec, r)
	if rec.Code != 502 {
		t.Errorf("a part of an answer is %d", rec.Code)
	}
}

func TestHeadersOfFilteredLists(t *testing.T) {
	header := http.Header{
		"Content-Length": {strconv.Itoa(len(bothTools))}, "Etag": {`"e"`}, "Content-Digest": {"sha-256=:x:"}, "Digest": {"x"},
		"X-Other": {"stays"}, "Mcp-Session-Id": {"s"},
	}
	rec := filtered(t, "a", "application/json", header, bothTools)
	h := rec.Header()
	if h.Get("Content-Length") != strconv.Itoa(len(oneTool)) || h.Get("Etag") != "" || h.Get("Content-Digest") != "" || h.Get("Digest") != "" || h.Get("X-Other") != "stays" {
		t.Errorf("headers of the filtered list %v", h)
	}
	if !strings.HasPrefix(h.Get("Mcp-Session-Id"), "s.") {
		t.Errorf("session id %q", h.Get("Mcp-Session-Id"))
	}
	if h := filtered(t, "all", "application/json", header, bothTools).Header(); h.Get("Content-Length") != strconv.Itoa(len(bothTools)) || h.Get("Etag") != `"e"` {
		t.Errorf("headers of the whole list %v", h)
	}
}

func TestListsInEvents(t *testing.T) {
	for _, row := range []struct{ rule, stream, want string }{
		{
			"a list among others", ": hello\n\nid: 1\ndata: {\"method\":\"notifications/progress\"}\n\nevent: message\nid: 2\nretry: 5\ndata: " + bothTools + "\n\ndata: {}\n\n",
			": hello\n\nid: 1\ndata: {\"method\":\"notifications/progress\"}\n\nevent: message\nid: 2\nretry: 5\ndata: " + oneTool + "\n\ndata: {}\n\n",
		},
		{"untouched", "data:{\"result\":{\"tools\":[]}}\r\nfoo: bar\r\n\r\n", "data:{\"result\":{\"tools\":[]}}\r\nfoo: bar\r\n\r\n"},
		{"CRLF", "id: 1\r\ndata: " + bothTools + "\r\n\r\n", "id: 1\ndata: " + oneTool + "\n\n"},
		{"CR", "id: 1\rdata: " + bothTools + "\r\r", "id: 1\ndata: " + oneTool + "\n\n"},
		{"no space", "data:" + bothTools + "\n\n", "data: " + oneTool + "\n\n"},
		{"several data lines", "data: {\"result\":\ndata: {\"tools\":\ndata: [{\"name\":\"xb\"},\ndata: {\"name\":\"a\"}]}}\n\n", "data: {\"result\":\ndata: {\"tools\":\ndata: [{\"name\":\"a\"}]}}\n\n"},
		{"lines between", "data: {\"result\":{\"tools\":\nid: 7\n: comment\ndata: [{\"name\":\"xb\"}]}}\n\n", "id: 7\n: comment\ndata: {\"result\":{\"tools\":\ndata: []}}\n\n"},
		{"a byte order mark", "\ufeffdata: " + bothTools + "\n\n", "data: " + oneTool + "\n\n"},
		{"a batch", "data: [" + bothTools + "]\n\n", "data: [" + oneTool + "]\n\n"},
		{"not ended", "data: " + bothTools + "\n", "data: " + oneTool + "\n"},
		{"cut in the middle", "data: {}\n\ndata: " + bothTools[:80], "data: {}\n\n"},
		{"a comment that some readers take for lines", ": a\rdata: " + bothTools + "\r\n\n", "data: " + oneTool + "\n\n"},
		{"CR inside of JSON", "data: {\"result\":{\"a\":1,\r\"tools\":[{\"name\":\"xb\"}]}}\n\n", "data: {\"result\":{\"a\":1,\n\n"},
		{"a comment that holds a list", ": " + bothTools + "\ndata: {}\n\n", "data: {}\n\n"},
		{"text that is no message", "event: endpoint\ndata: /tools/messages?id=1\n\n", "event: endpoint\ndata: /tools/messages?id=1\n\n"},
		{"empty data", "data\ndata:\n\n", "data\ndata:\n\n"},
	} {
		for _, parts := range [][]string{{row.stream}, strings.Split(row.stream, "")} {
			rec := filtered(t, "a", "text/event-stream", http.Header{"Content-Length": {"1"}, "Etag": {"x"}}, parts...)
			if diff := cmp.Diff(row.want, strings.TrimPrefix(rec.Body.String(), ": a\n")); diff != "" {
				t.Errorf("%s, in %d parts (-want +got):\n%s", row.rule, len(parts), diff)
			}
			if rec.Header().Get("Content-Length") != "" || rec.Header().Get("Etag") != "" {
				t.Errorf("%s: headers %v", row.rule, rec.Header())
			}
		}
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	step := make(chan struct{})
	server := serveHandler(t, newFilter(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, bothTools)
			_ = http.NewResponseController(w).Flush()
			<-step
		}
	}))
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer a")
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 {
		want := fmt.Sprintf("id: %d\ndata: %s\n\n", i, oneTool)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("event %d: %q, %v", i, got, err)
		}
		step <- struct{}{}
	}
}

func TestEventLargerThanTheBound(t *testing.T) {
	rec := filtered(t, "a", "text/event-stream", nil, "data: {}\n\ndata: ", strings.Repeat("x", 17<<20), "\n\ndata: late\n\n")
	if rec.Body.String() != "data: {}\n\n" {
		t.Errorf("the client sees %.200q", rec.Body.String())
	}
}

// What is no JSON and no event stream is not held back.
func TestOthersAreNotHeld(t *testing.T) {
	handler := newFilter(t, func(w http.ResponseWriter, _ *http.Request) {
		rec, _ := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(*httptest.ResponseRecorder)
		w.Header().Set("Content-Type", "text/plain")
		for _, part := range []string{"tools ", "and more"} {
			_, _ = io.WriteString(w, part)
			if !strings.HasSuffix(rec.Body.String(), part) {
				t.Errorf("%q is held back", part)
			}
		}
	})
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.Header.Set("Authorization", "Bearer a")
	handler.ServeHTTP(rec, r)
	if rec.Body.String() != "tools and more" {
		t.Error(rec.Body)
	}
}

func TestListsAndUpgradeExclude(t *testing.T) {
	resource := filteringResource()
	resource.Policy.AllowUpgrade = true
	_, err := bearer.NewGuard(bearer.GuardConfig{Resources: []bearer.Resource{resource}, AuthorizationServers: []string{guardIssuer}, Verifier: guardTokens{}})
	if err == nil || !strings.Contains(err.Error(), "WebSocket") {
		t.Errorf("%v", err)
	}
}

// lists returns what a lenient reader finds in JSON: the names of all entries.
func lists(text []byte) (names []string) {
	var one struct {
		Result struct {
			Tools, Prompts []struct{ Name string }
			Resources      []struct{ URI string }
			Templates      []struct{ URITemplate string } `json:"resourceTemplates"`
		}
	}
	read := func(text []byte) {
		if json.Unmarshal(text, &one) != nil {
			return
		}
		for _, entry := range append(one.Result.Tools, one.Result.Prompts...) {
			names = append(names, entry.Name)
		}
		for _, entry := range one.Result.Resources {
			names = append(names, entry.URI)
		}
		for _, entry := range one.Result.Templates {
			names = append(names, entry.URITemplate)
		}
	}
	var batch []json.RawMessage
	if json.Unmarshal(text, &batch) == nil {
		for _, message := range batch {
			read(message)
		}
		return names
	}
	read(text)
	return names
}

func forbidden(names []string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, "x") {
			return true
		}
	}
	return false
}

func FuzzListsInJSON(f *testing.F) {
	f.Add([]byte(bothTools))
	f.Add([]byte("[" + bothTools + "," + oneTool + "]"))
	f.Add([]byte(`{"Result":{"\u0074ools":[{"name":"xb"},{"name":"a","NAME":"xc"}],"resources":[{"uri":"x:"}]}}`))
	f.Add([]byte("{\"re\u017fult\":{\"prompt\u017f\":[{\"name\":\"xb\"}]}}"))
	filter := newFilter(f, partsBackend)
	f.Fuzz(func(t *testing.T, text []byte) {
		rec := filteredBy(filter, "a", "application/json", nil, string(text))
		got := rec.Body.Bytes()
		if rec.Code == 200 && forbidden(lists(got)) {
			t.Errorf("%q became %q", text, got)
		}
		// What is allowed and valid is not damaged.
		if json.Valid(text) && (rec.Code != 200 || !json.Valid(got)) {
			t.Errorf("%q became %d %q", text, rec.Code, got)
		}
	})
}

// eventData returns the data of the events in a stream, as a reader finds it
// whose lines end as splitLines has it.
func eventData(stream string, splitLines func(string) []string) (all []string) {
	var data []string
	flush := func() {
		if data != nil {
			all = append(all, strings.Join(data, "\n"))
		}
		data = nil
	}
	for _, line := range splitLines(strings.TrimPrefix(stream, "\ufeff")) {
		if line == "" {
			flush()
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		if field == "data" {
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	flush()
	return all
}

func standardLines(s string) []string {
	return strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s), "\n")
}

func lineFeedLines(s string) []string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	return lines
}

func FuzzListsInEvents(f *testing.F) {
	for _, stream := range []string{
		"data: " + bothTools + "\n\n", ": a\rdata: " + bothTools + "\r\n\n", "data: {\"result\":\r\ndata:{\"tools\":[{\"name\":\"xb\"}]}}\r\r",
		"data: {\"result\":{\"a\":1,\r\"tools\":[{\"name\":\"xb\"}]}}\n\n", "\ufeffdata: " + bothTools, "data:{}\n\ndata\ndata: [1]\n\n",
	} {
		f.Add(stream, uint8(3))
		f.Add(stream, uint8(0))
	}
	filter := newFilter(f, partsBackend)
	f.Fuzz(func(t *testing.T, stream string, size uint8) {
		var parts []string
		for rest := stream; rest != ""; {
			n := min(len(rest), max(1, int(size)))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		got := filteredBy(filter, "a", "text/event-stream", nil, parts...).Body.String()
		for name, split := range map[string]func(string) []string{"standard": standardLines, "line feeds only": lineFeedLines} {
			for _, data := range eventData(got, split) {
				if forbidden(lists([]byte(data))) {
					t.Errorf("a reader (%s) finds %q in %q, which was %q", name, data, got, stream)
				}
			}
		}
		// Events that hold no list are the same as before.
		if !strings.ContainsAny(stream, "TtPpOo\\") && got != stream {
			t.Errorf("%q became %q", stream, got)
		}
	})
}

func BenchmarkPass(b *testing.B) {
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	// Much of the cost is that of a context that can be ended.
	b.Run("context alone", func(b *testing.B) {
		r := httptest.NewRequest("GET", "/mcp", nil)
		w := discardWriter{http.Header{}}
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithCancelCause(r.Context())
			next(w, r.WithContext(ctx))
			cancel(nil)
		}
	})
	for _, row := range []struct {
		name   string
		change func(*bearer.Resource)
	}{
		{"no session", nil},
		{"filtered", func(r *bearer.Resource) { r.FilterLists = true }},
		{"unbound", func(r *bearer.Resource) { r.SessionBindingOff = true }},
	} {
		b.Run(row.name, func(b *testing.B) {
			resource := guardResource()
			if row.change != nil {
				row.change(&resource)
			}
			guard := newGuard(b, guardTokens{"a": guardToken("mcp:read")}, resource)
			r := httptest.NewRequest("GET", "/mcp", nil)
			r.Header.Set("Authorization", "Bearer a")
			decision, ok := guard.Check(httptest.NewRecorder(), r, nil)
			if !ok {
				b.Fatal("refused")
			}
			w := discardWriter{http.Header{}}
			pass := func(w http.ResponseWriter, r *http.Request) error {
				next(w, r)
				return nil
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = guard.Pass(w, r, decision, pass)
			}
		})
	}
}

type discardWriter struct{ header http.Header }

func (w discardWriter) Header() http.Header         { return w.header }
func (w discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w discardWriter) WriteHeader(int)             {}

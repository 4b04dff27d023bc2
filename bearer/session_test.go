package bearer_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// sessionServer stands behind a guard and gives everybody the session that the
// request asks for in Give. It says which session ids it has seen.
type sessionServer struct {
	*httptest.Server
	seen []string
}

const otherIdentifier = "https://mcp.example.com/other"

func startSessionServer(t testing.TB, key func() (bearer.SessionKey, error), change func(*bearer.Resource)) *sessionServer {
	t.Helper()
	token := func(issuer, user, client string) oauth.TokenInfo {
		return oauth.TokenInfo{
			Issuer: issuer, UserID: user, ClientID: client, Scopes: []string{"mcp:read"},
			Audience: []string{guardIdentifier, otherIdentifier}, ExpiresAt: guardTime.Add(time.Hour),
		}
	}
	one, two := guardResource(), guardResource()
	two.Identifier, two.Path = otherIdentifier, "/other"
	if change != nil {
		change(&one)
	}
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{one, two}, AuthorizationServers: []string{guardIssuer},
		SessionKey: key, Now: func() time.Time { return guardTime },
		Verifier: guardTokens{
			"alice":         token("https://a.example", "alice", "app"),
			"alice-renewed": token("https://a.example", "alice", "app"),
			"alice-phone":   token("https://a.example", "alice", "phone"),
			"bob":           token("https://a.example", "bob", "app"),
			"namesake":      token("https://b.example", "alice", "app"),
			"machine":       machine(token("https://a.example", "", "alice")),
			"machine-again": machine(token("https://a.example", "", "alice")),
			"unsaid":        token("https://a.example", "", "app"),
			"unsaid-other":  token("https://a.example", "", "app"),
			"nobody":        token("", "", ""),
			"nobody-else":   token("", "", ""),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &sessionServer{}
	s.Server = serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen = r.Header.Values("Mcp-Session-Id")
		for _, id := range r.Header["Give"] {
			w.Header().Add("mcp-session-id", id)
		}
		if r.Header.Get("Empty") == "" {
			_, _ = io.WriteString(w, "reached")
		}
	})))
	return s
}

// machine makes a token one that its client has for itself.
func machine(info oauth.TokenInfo) oauth.TokenInfo {
	info.Extra = map[string]any{"grant_type": "client_credentials"}
	return info
}

// call sends a request with a token and more headers.
func (s *sessionServer) call(t testing.TB, method, path, token string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// begin returns the session id that the client of a token is given for id.
func (s *sessionServer) begin(t testing.TB, path, token, id string) string {
	t.Helper()
	resp, _ := s.call(t, "POST", path, token, http.Header{"Give": {id}})
	bound := resp.Header.Values("Mcp-Session-Id")
	if len(bound) != 1 || !strings.HasPrefix(bound[0], id+".") || len(bound[0]) != len(id)+1+22 {
		t.Fatalf("the session id %q was given as %q", id, bound)
	}
	return bound[0]
}

func TestSessionIsItsUsers(t *testing.T) {
	s := startSessionServer(t, nil, nil)
	bound := s.begin(t, "/mcp", "alice", "s-1")
	for _, row := range []struct {
		rule, path, token, id string
		status                int
	}{
		{"the user", "/mcp", "alice", bound, 200},
		{"the user, elsewhere in the resource", "/mcp/x", "alice", bound, 200},
		{"the user with another token", "/mcp", "alice-renewed", bound, 200},
		{"the user with another client", "/mcp", "alice-phone", bound, 200},
		{"another user", "/mcp", "bob", bound, 404},
		{"the same name at another issuer", "/mcp", "namesake", bound, 404},
		{"a machine of that name", "/mcp", "machine", bound, 404},
		{"a token of nobody", "/mcp", "nobody", bound, 404},
		{"another resource", "/other", "alice", bound, 404},
		{"MAC stripped", "/mcp", "alice", "s-1", 404},
		{"MAC empty", "/mcp", "alice", "s-1.", 404},
		{"MAC cut", "/mcp", "alice", bound[:len(bound)-1], 404},
		{"MAC longer", "/mcp", "alice", bound + "A", 404},
		{"MAC padded", "/mcp", "alice", bound + "==", 404},
		{"id altered", "/mcp", "alice", "S" + bound[1:], 404},
		{"bytes moved from the id to the MAC", "/mcp", "alice", strings.Replace(bound, "s-1.", "s-.1", 1), 404},
		{"MAC alone", "/mcp", "alice", bound[strings.LastIndexByte(bound, '.'):], 404},
		{"MAC twice", "/mcp", "alice", bound + bound[strings.LastIndexByte(bound, '.'):], 404},
		{"empty", "/mcp", "alice", "", 404},
	} {
		for _, method := range []string{"POST", "GET", "DELETE"} {
			t.Run(row.rule+", "+method, func(t *testing.T) {
				s.seen = nil
				resp, body := s.call(t, method, row.path, row.token, http.Header{"Mcp-Session-Id": {row.id}})
				if resp.StatusCode != row.status {
					t.Fatalf("%d %s, want %d", resp.StatusCode, body, row.status)
				}
				if row.status == 200 {
					if len(s.seen) != 1 || s.seen[0] != "s-1" {
						t.Errorf("the server saw %q", s.seen)
					}
					return
				}
				if s.seen != nil || body == "reached" {
					t.Errorf("the server saw the request with %q", s.seen)
				}
				if want := `{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}`; body != want ||
					resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("body %s, headers %v", body, resp.Header)
				}
			})
		}
	}
}

func TestSessionSplicing(t *testing.T) {
	s := startSessionServer(t, nil, nil)
	alice, bob := s.begin(t, "/mcp", "alice", "a"), s.begin(t, "/mcp", "bob", "b")
	mac := func(bound string) string { return bound[strings.LastIndexByte(bound, '.'):] }
	for rule, id := range map[string]string{"own MAC on the id of another": "b" + mac(alice), "MAC of another on the own id": "a" + mac(bob)} {
		if resp, _ := s.call(t, "POST", "/mcp", "alice", http.Header{"Mcp-Session-Id": {id}}); resp.StatusCode != 404 {
			t.Errorf("%s: %d", rule, resp.StatusCode)
		}
	}
	// Tokens that name nobody have sessions of their own: two users of one client may
	// have such tokens. Those of a machine share the sessions of their client.
	for token, others := range map[string]map[string]int{
		"nobody":  {"nobody": 200, "nobody-else": 404},
		"unsaid":  {"unsaid": 200, "unsaid-other": 404, "machine": 404, "alice": 404},
		"machine": {"machine": 200, "machine-again": 200, "unsaid": 404, "alice": 404},
	} {
		bound := s.begin(t, "/mcp", token, "n")
		for other, status := range others {
			if resp, _ := s.call(t, "POST", "/mcp", other, http.Header{"Mcp-Session-Id": {bound}}); resp.StatusCode != status {
				t.Errorf("%s in the session of %s: %d, want %d", other, token, resp.StatusCode, status)
			}
		}
	}
}

// Servers in other languages take Mcp_Session_Id for the same header.
func TestSeveralSessionHeaders(t *testing.T) {
	s := startSessionServer(t, nil, nil)
	bound := s.begin(t, "/mcp", "alice", "s")
	for rule, lines := range map[string][]string{
		"twice":                  {"Mcp-Session-Id: " + bound, "Mcp-Session-Id: " + bound},
		"two spellings":          {"Mcp-Session-Id: " + bound, "Mcp_Session_Id: s"},
		"underscores":            {"Mcp_Session_Id: s"},
		"one underscore, bound":  {"Mcp-Session_Id: " + bound},
		"another odd character":  {"Mcp.Session.Id: s"},
		"an empty one besides":   {"Mcp-Session-Id: " + bound, "Mcp-Session-Id:"},
		"other case, underscore": {"mcp_session_id: s"},
	} {
		s.seen = nil
		resp, body := sendRaw(t, s.Server, "", append([]string{"GET /mcp HTTP/1.1", "Authorization: Bearer alice"}, lines...)...)
		if resp.StatusCode != 400 || s.seen != nil || !strings.Contains(body, `"code":-32000`) {
			t.Errorf("%s: %d %s; the server saw %q", rule, resp.StatusCode, body, s.seen)
		}
	}
}

func TestSessionIDsOfAnyKindComeBack(t *testing.T) {
	s := startSessionServer(t, nil, nil)
	for _, id := range []string{"s", "a.b.c", ".", "..", strings.Repeat("x", 2000), "with space", "q\"uo,te;=%", "caf\xc3\xa9", "\xff\x80"} {
		bound := s.begin(t, "/mcp", "alice", id)
		if resp, _ := s.call(t, "DELETE", "/mcp", "alice", http.Header{"Mcp-Session-Id": {bound}}); resp.StatusCode != 200 || len(s.seen) != 1 || s.seen[0] != id {
			t.Errorf("%q came back as %q (%d)", id, s.seen, resp.StatusCode)
		}
	}
}

func TestSessionInEveryAnswer(t *testing.T) {
	s := startSessionServer(t, nil, nil)
	bound := s.begin(t, "/mcp", "alice", "s")
	header := http.Header{"Mcp-Session-Id": {bound}, "Give": {"s"}}
	if resp, _ := s.call(t, "POST", "/mcp", "alice", header); resp.Header.Get("Mcp-Session-Id") != bound {
		t.Errorf("the repeated id became %q", resp.Header.Get("Mcp-Session-Id"))
	}
	header.Set("Give", "new")
	if resp, _ := s.call(t, "POST", "/mcp", "alice", header); !strings.HasPrefix(resp.Header.Get("Mcp-Session-Id"), "new.") {
		t.Errorf("another id became %q", resp.Header.Get("Mcp-Session-Id"))
	}
	resp, _ := s.call(t, "POST", "/mcp", "alice", http.Header{"Give": {"a", "b"}, "Empty": {"1"}})
	for _, id := range resp.Header.Values("Mcp-Session-Id") {
		if len(id) != len("a.")+22 {
			t.Errorf("one of two ids of an answer without a body is %q", id)
		}
	}
	if resp, _ := s.call(t, "POST", "/mcp", "alice", nil); len(resp.Header["Mcp-Session-Id"]) != 0 {
		t.Errorf("a session nobody gave: %v", resp.Header)
	}
}

func TestSessionBindingOff(t *testing.T) {
	s := startSessionServer(t, nil, func(r *bearer.Resource) { r.SessionBindingOff = true })
	resp, _ := s.call(t, "POST", "/mcp", "alice", http.Header{"Mcp-Session-Id": {"x"}, "Give": {"x"}})
	if resp.StatusCode != 200 || resp.Header.Get("Mcp-Session-Id") != "x" || len(s.seen) != 1 || s.seen[0] != "x" {
		t.Errorf("%d, header %q, the server saw %q", resp.StatusCode, resp.Header.Get("Mcp-Session-Id"), s.seen)
	}
	// The other resource is still bound.
	s.begin(t, "/other", "alice", "x")
}

func TestSessionKeys(t *testing.T) {
	if _, err := bearer.NewSessionKey(make([]byte, 31)); err == nil {
		t.Error("a short key is accepted")
	}
	start := func(secret byte) *sessionServer {
		key, err := bearer.NewSessionKey(bytes.Repeat([]byte{secret}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return startSessionServer(t, func() (bearer.SessionKey, error) { return key, nil }, nil)
	}
	bound := start(1).begin(t, "/mcp", "alice", "s")
	for rule, row := range map[string]struct {
		node   *sessionServer
		status int
	}{"a node with the same key": {start(1), 200}, "a node with another": {start(2), 404}, "a node with a random one": {startSessionServer(t, nil, nil), 404}} {
		if resp, _ := row.node.call(t, "GET", "/mcp", "alice", http.Header{"Mcp-Session-Id": {bound}}); resp.StatusCode != row.status {
			t.Errorf("%s: %d, want %d", rule, resp.StatusCode, row.status)
		}
	}
}

func TestSessionKeyOutOfReach(t *testing.T) {
	s := startSessionServer(t, func() (bearer.SessionKey, error) { return nil, errors.New("secret detail") }, nil)
	for rule, header := range map[string]http.Header{
		"a session goes on": {"Mcp-Session-Id": {"s.AAAAAAAAAAAAAAAAAAAAAA"}},
		"a session begins":  {"Give": {"s"}},
	} {
		resp, body := s.call(t, "POST", "/mcp", "alice", header)
		if resp.StatusCode != 503 || strings.Contains(body, "secret") || resp.Header.Get("Mcp-Session-Id") != "" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s %v", rule, resp.StatusCode, body, resp.Header)
		}
	}
	if resp, body := s.call(t, "POST", "/mcp", "alice", nil); resp.StatusCode != 200 || body != "reached" {
		t.Errorf("without a session: %d %s", resp.StatusCode, body)
	}
}

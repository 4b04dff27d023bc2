package caddytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// TestGoClientStepsUpOnce: the first refusal names all that the call needs, so
// that go-sdk, which asks once more for each call, gets there.
func TestGoClientStepsUpOnce(t *testing.T) {
	site := strings.Replace(brokerSite, "scopes mcp:read", `scopes mcp:read
			tool delete_* mcp:write
			tool *_note mcp:notes mcp:admin
			method resources/* mcp:resources
			implies mcp:admin mcp:write`, 1)
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(site, aliceAccount(t), "", startMCPServer(t))); err != nil {
		t.Fatal(err)
	}
	client, err := connectGo(t, c.Origin+"/mcp")
	if err != nil {
		t.Fatal(err)
	}
	refusals := func() int { return strings.Count(c.log(), `"error":"insufficient_scope"`) }
	if got := client.whoami(t).Scope; got != "mcp:read" || refusals() != 0 {
		t.Fatalf("scope %s after %d refusals", got, refusals())
	}
	answer, err := client.CallTool(t.Context(), &mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "todo"}})
	if err != nil || answer.IsError {
		t.Fatalf("%+v, error %v", answer, err)
	}
	if n := refusals(); n != 1 {
		t.Errorf("%d refusals before the call went through, want 1", n)
	}
	scopes := strings.Fields(client.whoami(t).Scope)
	if diff := cmp.Diff([]string{"mcp:admin", "mcp:notes", "mcp:read", "mcp:write"}, scopes, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
	resources, err := client.ListResources(t.Context(), nil)
	if err != nil || len(resources.Resources) == 0 {
		t.Fatalf("%+v, error %v", resources, err)
	}
	if n := refusals(); n != 2 {
		t.Errorf("%d refusals in all, want 2", n)
	}
	if _, err := client.CallTool(t.Context(), &mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "welcome"}}); err != nil {
		t.Errorf("what was granted first is lost: %v", err)
	}
}

// TestResourceAllow: the broker's tokens carry what the rules of a resource are
// about, though nothing is forwarded.
func TestResourceAllow(t *testing.T) {
	for _, row := range []struct {
		name, rules string
		alice, bob  int
	}{
		{"group", "allow group engineering", 200, 403},
		{"one of two", "allow group sales\nallow group engineering", 200, 403},
		{"email", "allow email *@example.com", 200, 403},
		{"claim", "allow claim groups engineering", 200, 403},
		{"subject", "allow subject bob", 403, 200},
		{"when", `when "engineering" in groups`, 200, 403},
		{"when with email", `when email.endsWith("@example.com")`, 200, 403},
		{"when with user and method", `when user == "bob" || method != "tools/call"`, 403, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBackend(t)
			c := newCaddy(t)
			site := strings.Replace(accountsSite, "forward identity email groups", row.rules+"\nforward none", 1)
			if err := c.load(memoryStore, fmt.Sprintf(site, hash(t, "correct horse"), hash(t, "battery staple"), "", b.addr())); err != nil {
				t.Fatal(err)
			}
			id := c.register(testRedirect)
			for user, want := range map[string]int{"alice": row.alice, "bob": row.bob} {
				password := map[string]string{"alice": "correct horse", "bob": "battery staple"}[user]
				answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), user, password)
				_, tokens := c.exchange(id, answer.Get("code"))
				header := bearerHeader(fmt.Sprint(tokens["access_token"]))
				header.Set("Content-Type", "application/json")
				resp, body := c.send("POST", "/mcp", header, reading)
				if resp.StatusCode != want || len(b.take()) > 0 != (want == 200) {
					t.Errorf("%s: %d %s, want %d", user, resp.StatusCode, body, want)
				}
				if want == 403 && (resp.Header.Get("WWW-Authenticate") != "" || !strings.Contains(body, "access_denied")) {
					t.Errorf("%s: %s, challenge %s", user, body, resp.Header.Get("WWW-Authenticate"))
				}
			}
		})
	}
}

// TestWhenThroughCaddy: conditions on calls, with a JWT of another server.
func TestWhenThroughCaddy(t *testing.T) {
	call := func(arguments string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":` + arguments + `}}`
	}
	const condition = `tool != "pay" || arguments.amount <= 100 && claims.level >= 2 && arguments.to.all(t, t.matches("^[a-z]+$"))`
	for _, row := range []struct {
		name, body string
		claims     map[string]any
		status     int
	}{
		{"fits", call(`{"amount":100,"to":["a"]}`), nil, 200},
		{"fits, with a fraction", call(`{"amount":99.5,"to":[]}`), nil, 200},
		{"another tool", reading, nil, 200},
		{"another method", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, nil, 200},
		{"too much", call(`{"amount":101,"to":["a"]}`), nil, 403},
		{"too much, exactly", call(`{"amount":9007199254740993,"to":["a"]}`), nil, 403},
		{"a text where a number is meant", call(`{"amount":"1","to":["a"]}`), nil, 403},
		{"an argument is missing", call(`{"to":["a"]}`), nil, 403},
		{"no arguments", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}`, nil, 403},
		{"arguments are an array", call(`[1]`), nil, 403},
		{"arguments are null", call(`null`), nil, 403},
		{"a number beyond all bounds", call(`{"amount":-1e999,"to":["a"]}`), nil, 403},
		{"an argument twice", call(`{"amount":1,"amount":1000,"to":["a"]}`), nil, 400},
		{"an argument twice, in another case", call(`{"amount":1,"Amount":1000,"to":["a"]}`), nil, 400},
		{"a claim is too small", call(`{"amount":1,"to":["a"]}`), map[string]any{"level": 1}, 403},
		{"a claim is missing", call(`{"amount":1,"to":["a"]}`), map[string]any{"level": nil}, 403},
		{"one of many", call(`{"amount":1,"to":["a","B"]}`), nil, 403},
		{"more than may be spent on it", call(`{"amount":1,"to":["` + strings.Repeat(`a","`, 100_000) + `a"]}`), nil, 403},
		{"in a batch", "[" + reading + "," + call(`{"amount":1000,"to":["a"]}`) + "]", nil, 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, idp, b := loadGuarded(t, "", "resource /mcp {\n\t\t\tscopes mcp:read\n\t\t\twhen "+condition+"\n\t\t}")
			claims := map[string]any{"aud": c.Origin + "/mcp", "level": 2}
			for name, value := range row.claims {
				claims[name] = value
			}
			header := http.Header{"Authorization": {"Bearer " + idp.token(claims)}, "Content-Type": {"application/json"}}
			resp, body := c.send("POST", "/mcp", header, row.body)
			if resp.StatusCode != row.status || len(b.take()) > 0 != (row.status == 200) {
				t.Errorf("%d %s, want %d", resp.StatusCode, body, row.status)
			}
			if resp.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("challenge %s", resp.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

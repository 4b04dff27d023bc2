package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestAdminRequestsThatAreRefused: a mistake in a request to the admin API ends
// nothing, least of all more than was meant.
func TestAdminRequestsThatAreRefused(t *testing.T) {
	c := newCaddy(t)
	socket := c.dir + "/admin.sock"
	config := c.adapt(memoryStore, fmt.Sprintf(accountsSite, hash(t, alicePassword), hash(t, "b"), "", newBackend(t).addr()))
	config = []byte(strings.Replace(string(config), `"admin":{"disabled":true`, `"admin":{"listen":"unix/`+socket+`"`, 1))
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	tokens := c.mustExchange(id, newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), "alice", alicePassword))
	grants := func() (list []struct{ Grant string }) {
		t.Helper()
		if err := json.Unmarshal([]byte(adminRequest(t, socket, "GET", "/mcp_auth/grants?issuer="+c.Origin+"&user=alice", "", http.StatusOK)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	grant := grants()[0].Grant
	for _, row := range []struct{ method, path, members, want string }{
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","grant_id":"` + grant + `"`, "grant_id"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","Grant":"` + grant + `"`, "Grant"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","grant":""`, "empty"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","grant":null`, "empty"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","grant":["` + grant + `"]`, "grant"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","user_issuer":""`, "empty"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"alice","client_id":"` + id + `"`, "client_id"},
		{"POST", "/mcp_auth/grants/revoke", `"user":"bob","user":"alice"`, "two members"},
		{"POST", "/mcp_auth/grants/revoke", `"grant":"` + grant + `"`, "user is missing"},
		{"POST", "/mcp_auth/grants/revoke?grant=" + grant, `"user":"alice"`, "query"},
		{"POST", "/mcp_auth/clients/revoke", `"client_id":""`, "empty"},
		{"POST", "/mcp_auth/clients/revoke", `"client":"` + id + `"`, "client"},
		{"POST", "/mcp_auth/keys/rotate", `"drop":"true"`, "drop"},
		{"POST", "/mcp_auth/keys/rotate", `"user":"alice"`, "user"},
		{"GET", "/mcp_auth/grants?issuer=" + c.Origin + "&user=alice&user=bob", "", "user"},
		{"GET", "/mcp_auth/grants?issuer=" + c.Origin + "&user=alice&grant=x", "", "grant"},
		{"GET", "/mcp_auth/grants?issuer=" + c.Origin + "&user=%zz", "", "query"},
		{"GET", "/mcp_auth/servers?issuer=x", "", "issuer"},
	} {
		body := ""
		if row.method == "POST" {
			body = `{"issuer":"` + c.Origin + `",` + row.members + `}`
		}
		if answer := adminRequest(t, socket, row.method, row.path, body, http.StatusBadRequest); !strings.Contains(answer, row.want) {
			t.Errorf("%s %s %s: %s, want %q", row.method, row.path, row.members, answer, row.want)
		}
	}
	if list := grants(); len(list) != 1 || c.uses(tokens) != http.StatusOK {
		t.Errorf("afterwards there are %v", list)
	}
	adminRequest(t, socket, "POST", "/mcp_auth/grants/revoke", `{"issuer":"`+c.Origin+`","user":"alice","grant":"`+grant+`"}`, http.StatusOK)
	if list := grants(); len(list) != 0 || c.uses(tokens) != http.StatusUnauthorized {
		t.Errorf("after the grant was ended there are %v", list)
	}
}

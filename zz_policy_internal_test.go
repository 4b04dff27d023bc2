package mcpauth

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestZZ(t *testing.T) {
	for _, e := range []string{`arguments.to.all(t, t.matches("^[a-z]+$"))`, `arguments.to.all(t, t == "a")`, `arguments.to.all(t, arguments.to.all(u, u == t))`, `size(arguments.to) > 5`, `arguments.s.matches("(a*)*b")`, `arguments.s.contains("b")`} {
		c, err := Expression(e).compile()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1000, 10000, 100000} {
			args := []byte(`{"to":["` + strings.Repeat(`a","`, n) + `a"],"s":"` + strings.Repeat("a", n*4) + `"}`)
			start := time.Now()
			ok, err := c.permits(context.Background(), &bearer.Call{Info: &oauth.TokenInfo{}, Method: "tools/call", Name: "x", Arguments: args})
			fmt.Println(e, n, time.Since(start), ok, err)
		}
	}
}

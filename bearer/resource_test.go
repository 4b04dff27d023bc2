package bearer_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func TestNewGuardRefuses(t *testing.T) {
	issuers := []string{guardIssuer}
	one := func(change func(*bearer.Resource)) bearer.GuardConfig {
		resource := guardResource()
		change(&resource)
		return bearer.GuardConfig{Resources: []bearer.Resource{resource}, AuthorizationServers: issuers, Verifier: guardTokens{}}
	}
	two := func(a, b bearer.Resource) bearer.GuardConfig {
		return bearer.GuardConfig{Resources: []bearer.Resource{a, b}, AuthorizationServers: issuers, Verifier: guardTokens{}}
	}
	identifier := func(s string) bearer.GuardConfig { return one(func(r *bearer.Resource) { r.Identifier = s }) }
	path := func(s string) bearer.GuardConfig { return one(func(r *bearer.Resource) { r.Path = s }) }
	rule := func(pattern string, scopes ...string) bearer.GuardConfig {
		return one(func(r *bearer.Resource) { r.Paths = []bearer.PathRule{{Pattern: pattern, Scopes: scopes}} })
	}
	origin := func(s string) bearer.GuardConfig { return one(func(r *bearer.Resource) { r.Origins = []string{s} }) }
	issuer := func(s string) bearer.GuardConfig {
		return one(func(r *bearer.Resource) { r.AuthorizationServers = []string{s} })
	}
	for name, test := range map[string]struct {
		config bearer.GuardConfig
		want   string // part of the error
	}{
		"no verifier":                {bearer.GuardConfig{Resources: []bearer.Resource{guardResource()}, AuthorizationServers: issuers}, "a verifier is needed"},
		"no resources":               {bearer.GuardConfig{AuthorizationServers: issuers, Verifier: guardTokens{}}, "for the whole site give one with the path /"},
		"no authorization server":    {bearer.GuardConfig{Resources: []bearer.Resource{guardResource()}, Verifier: guardTokens{}}, "an authorization server is needed"},
		"relative issuer":            {issuer("auth.example.com"), "must be an absolute https or http URL"},
		"issuer with query":          {issuer("https://auth.example.com?x"), "must not hold a query or fragment"},
		"empty identifier":           {identifier(""), "must be an absolute https or http URL"},
		"relative identifier":        {identifier("/mcp"), "must be an absolute https or http URL"},
		"identifier of a scheme":     {identifier("ftp://mcp.example.com/mcp"), "must be an absolute https or http URL"},
		"opaque identifier":          {identifier("urn:mcp"), "must be an absolute https or http URL"},
		"identifier with fragment":   {identifier("https://mcp.example.com/mcp#x"), "must not hold a query or fragment"},
		"identifier with query":      {identifier("https://mcp.example.com/mcp?x=1"), "must not hold a query or fragment"},
		"identifier with userinfo":   {identifier("https://u:p@mcp.example.com/mcp"), "must not hold a user name or password"},
		"identifier, dot segments":   {identifier("https://mcp.example.com/x/../mcp"), "dot segment"},
		"identifier, not a URL":      {identifier("https://mcp.example.com/%zz"), "is not a URL"},
		"path without slash":         {path("mcp"), `write "/mcp"`},
		"path with slash at the end": {path("/mcp/"), `write "/mcp", which guards everything below it too`},
		"path with star":             {path("/mcp/*"), "write the path without *"},
		"path with query":            {path("/mcp?x"), "must not hold"},
		"path with escape":           {path("/m%63p"), "must not hold"},
		"path with dot segment":      {path("/a/../mcp"), "must not hold"},
		"path with doubled slash":    {path("//mcp"), "must not hold"},
		"path with semicolon":        {path("/mcp;x"), "must not hold"},
		"path outside ASCII":         {path("/café"), "plain ASCII"},
		"rule outside":               {rule("/other", "s"), `write a site path that begins with "/mcp"`},
		"rule beside":                {rule("/mcpfoo*", "s"), `write a site path that begins with "/mcp"`},
		"rule without slash":         {rule("mcp/x", "s"), `write "/mcp/x"`},
		"rule with a star inside":    {rule("/mcp/*/x", "s"), "understood at the end only"},
		"rule without scopes":        {rule("/mcp/x"), "names no scope"},
		"rule with a bad scope":      {rule("/mcp/x", "a b"), "is not a scope"},
		"rule with offline_access":   {rule("/mcp/x", "offline_access"), "leave it out here"},
		"bad scope":                  {one(func(r *bearer.Resource) { r.Scopes = []string{`a"b`} }), "is not a scope"},
		"empty scope":                {one(func(r *bearer.Resource) { r.Scopes = []string{""} }), "is not a scope"},
		"required offline_access":    {one(func(r *bearer.Resource) { r.Require = []string{"offline_access"} }), "leave it out here"},
		"bad required scope":         {one(func(r *bearer.Resource) { r.Require = []string{"é"} }), "is not a scope"},
		"implies itself":             {one(func(r *bearer.Resource) { r.Implies = map[string][]string{"a": {"a"}} }), `"a" implies itself`},
		"implies in a circle":        {one(func(r *bearer.Resource) { r.Implies = map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"a"}} }), "implies itself, through"},
		"a circle off the path":      {one(func(r *bearer.Resource) { r.Implies = map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b"}} }), "implies itself, through"},
		"implies a bad scope":        {one(func(r *bearer.Resource) { r.Implies = map[string][]string{"a": {"b c"}} }), "is not a scope"},
		"any origin":                 {origin("*"), "list the origins"},
		"origin with path":           {origin("https://app.example.com/"), "write scheme and host without path"},
		"origin without scheme":      {origin("app.example.com"), "write scheme and host without path"},
		"null origin":                {origin("null"), "write scheme and host without path"},
		"empty audience":             {one(func(r *bearer.Resource) { r.Audiences = []string{""} }), "an audience is empty"},
		"audiences and any":          {one(func(r *bearer.Resource) { r.Audiences, r.AnyAudience = []string{"x"}, true }), "choose one"},
		"relative documentation":     {one(func(r *bearer.Resource) { r.Documentation = "docs" }), "must be an absolute"},
		"one path twice":             {two(guardResource(), bearer.Resource{Identifier: "https://mcp.example.com/x", Path: "/MCP"}), "guard the same path"},
		"the whole site twice":       {two(bearer.Resource{Identifier: guardIdentifier}, bearer.Resource{Identifier: "https://mcp.example.com/x", Path: "/"}), "guard the same path"},
		"one identifier twice":       {two(guardResource(), bearer.Resource{Identifier: "https://MCP.example.com/mcp/", Path: "/x"}), "mean the same resource"},
		"one metadata path twice":    {two(guardResource(), bearer.Resource{Identifier: "https://other.example.com/mcp", Path: "/x"}), "metadata at the same path"},
		"two defaults": {
			two(bearer.Resource{Identifier: guardIdentifier, Path: "/mcp", Default: true}, bearer.Resource{Identifier: "https://mcp.example.com/x", Path: "/x", Default: true}),
			"mark one only",
		},
	} {
		t.Run(name, func(t *testing.T) {
			guard, err := bearer.NewGuard(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want an error with %q", err, test.want)
			}
			if guard != nil {
				t.Error("there is a guard beside the error")
			}
		})
	}
}

func TestNewGuardAccepts(t *testing.T) {
	for name, resource := range map[string]bearer.Resource{
		"whole site":               {Identifier: guardIdentifier},
		"bare origin":              {Identifier: "https://mcp.example.com", Path: "/"},
		"http on loopback":         {Identifier: "http://localhost:8080/mcp", Path: "/mcp"},
		"path of its own":          {Identifier: guardIdentifier, Path: "/internal/v1.0/mcp-server_2~x"},
		"rule for all of it":       {Identifier: guardIdentifier, Path: "/mcp", Paths: []bearer.PathRule{{Pattern: "/mcp*", Scopes: []string{"s"}}}},
		"rule on the whole site":   {Identifier: guardIdentifier, Paths: []bearer.PathRule{{Pattern: "/*", Scopes: []string{"s"}}}},
		"diamond of implications":  {Identifier: guardIdentifier, Implies: map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}},
		"offline_access in scopes": {Identifier: guardIdentifier, Scopes: []string{"a", "offline_access"}},
	} {
		t.Run(name, func(t *testing.T) { newGuard(t, guardTokens{}, resource) })
	}
}

func TestGuardScopes(t *testing.T) {
	resource := bearer.Resource{
		Identifier: guardIdentifier, Path: "/mcp",
		Scopes:  []string{"mcp:read", "mcp:write", "offline_access"},
		Require: []string{"mcp:read"},
		Implies: map[string][]string{"mcp:all": {"mcp:admin"}, "mcp:admin": {"mcp:write"}, "mcp:write": {"mcp:read"}},
		Paths: []bearer.PathRule{
			{Pattern: "/mcp/admin*", Scopes: []string{"mcp:admin"}},
			{Pattern: "/mcp/admin/keys", Scopes: []string{"mcp:keys", "mcp:read"}},
		},
	}
	reached := ""
	for _, test := range []struct {
		name   string
		path   string
		scopes []string
		want   string // scope of the 403, empty if the request gets through
	}{
		{"required scope", "/mcp", []string{"mcp:read"}, reached},
		{"advertised scopes are not all required", "/mcp/tools", []string{"mcp:read"}, reached},
		{"a broader scope implies it", "/mcp", []string{"mcp:write"}, reached},
		{"implication is transitive", "/mcp", []string{"mcp:all"}, reached},
		{"a narrower scope implies nothing", "/mcp/admin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule", "/mcp/admin", []string{"mcp:read", "mcp:admin"}, reached},
		{"path rule as prefix", "/mcp/administrators", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule in other case", "/mcp/ADMIN", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind doubled slashes", "/mcp//admin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind an escape", "/mcp/%61dmin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind two escapes", "/mcp/%2561dmin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"all matching rules count", "/mcp/admin/keys", []string{"mcp:admin"}, "mcp:read mcp:admin mcp:keys"},
		{"rule with a slash behind", "/mcp/admin/keys/", []string{"mcp:admin"}, "mcp:read mcp:admin mcp:keys"},
		{"exact rule does not reach below", "/mcp/admin/keys/1", []string{"mcp:admin"}, reached},
		{"all rules satisfied", "/mcp/admin/keys", []string{"mcp:keys", "mcp:all"}, reached},
		{"known grants are kept, sorted", "/mcp/admin", []string{"mcp:write", "mcp:keys", "mcp:read"}, "mcp:read mcp:admin mcp:keys mcp:write"},
		{"foreign grants are not told", "/mcp", []string{"email", "offline_access", "openid"}, "mcp:read"},
		{"scopes are compared by case", "/mcp", []string{"MCP:READ"}, "mcp:read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serveGuarded(t, newGuard(t, guardTokens{"t": guardToken(test.scopes...)}, resource))
			want := guardAnswer{Status: 200, Reached: true}
			if test.want != reached {
				want = guardAnswer{
					Status: 403, Error: "insufficient_scope", Description: "Insufficient scope",
					Challenge: `Bearer error="insufficient_scope", error_description="Insufficient scope", scope="` +
						test.want + `", resource_metadata="` + guardMetadataURL + `"`,
				}
			}
			if diff := cmp.Diff(want, ask(t, server, "POST "+test.path+" HTTP/1.1", "Authorization: Bearer t")); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a 401 names what this request needs", func(t *testing.T) {
		got := ask(t, serveGuarded(t, newGuard(t, guardTokens{}, resource)), "POST /mcp/admin HTTP/1.1")
		if want := `Bearer scope="mcp:read mcp:admin", resource_metadata="` + guardMetadataURL + `"`; got.Challenge != want {
			t.Errorf("challenge %q, want %q", got.Challenge, want)
		}
	})
	t.Run("nothing required", func(t *testing.T) {
		open := guardResource()
		open.Require = []string{}
		server := serveGuarded(t, newGuard(t, guardTokens{"t": guardToken()}, open))
		if got := ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer t"); !got.Reached {
			t.Errorf("%+v", got)
		}
		want := `Bearer resource_metadata="` + guardMetadataURL + `"`
		if got := ask(t, server, "POST /mcp HTTP/1.1"); got.Challenge != want {
			t.Errorf("challenge %q, want %q", got.Challenge, want)
		}
	})
}

func TestGuardAudience(t *testing.T) {
	other := bearer.Resource{Identifier: "https://mcp.example.com/other", Path: "/other", Scopes: []string{"mcp:read"}}
	listed := guardResource()
	listed.Audiences = []string{"api://mcp", "https://api.example.com/v1"}
	anybody := guardResource()
	anybody.AnyAudience = true
	one := []bearer.Resource{guardResource()}
	for _, test := range []struct {
		name      string
		resources []bearer.Resource
		audience  []string
		want      bool
	}{
		{"identifier", one, []string{guardIdentifier}, true},
		{"one of several", one, []string{"https://x.example.com", guardIdentifier}, true},
		{"host in another case", one, []string{"HTTPS://MCP.example.COM/mcp"}, true},
		{"default port", one, []string{"https://mcp.example.com:443/mcp"}, true},
		{"slash behind", one, []string{"https://mcp.example.com/mcp/"}, true},
		{"bare origin with one resource", one, []string{"https://mcp.example.com"}, true},
		{"bare origin with slash", one, []string{"https://mcp.example.com/"}, true},
		{"URL below the only resource", one, []string{"https://mcp.example.com/mcp/sse"}, true},
		{"path in another case", one, []string{"https://mcp.example.com/MCP"}, false},
		{"other path", one, []string{"https://mcp.example.com/mcpfoo"}, false},
		{"other host", one, []string{"https://mcp.example.com.evil.example/mcp"}, false},
		{"other port", one, []string{"https://mcp.example.com:8443/mcp"}, false},
		{"other scheme", one, []string{"http://mcp.example.com/mcp"}, false},
		{"userinfo", one, []string{"https://mcp.example.com@evil.example/mcp"}, false},
		{"below by dot segments", one, []string{"https://mcp.example.com/mcp/../other"}, false},
		{"empty", one, []string{""}, false},
		{"none", one, nil, false},
		{"bare origin with two resources", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com"}, false},
		{"below with two resources", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com/mcp/sse"}, false},
		{"another resource of this guard", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com/other"}, false},
		{"listed, no URL", []bearer.Resource{listed}, []string{"api://mcp"}, true},
		{"listed, other spelling", []bearer.Resource{listed}, []string{"https://API.example.com/v1/"}, true},
		{"identifier beside a list", []bearer.Resource{listed}, []string{guardIdentifier}, true},
		{"bare origin beside a list", []bearer.Resource{listed}, []string{"https://mcp.example.com"}, false},
		{"not listed", []bearer.Resource{listed}, []string{"api://other"}, false},
		{"any", []bearer.Resource{anybody}, []string{"whoever"}, true},
		{"any, even none", []bearer.Resource{anybody}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			info := guardToken("mcp:read")
			info.Audience = test.audience
			server := serveGuarded(t, newGuard(t, guardTokens{"t": info}, test.resources...))
			got := ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer t")
			if got.Reached != test.want || !test.want && got.Description != "Token was not issued for this resource" {
				t.Errorf("%+v, want reached %v", got, test.want)
			}
		})
	}
}

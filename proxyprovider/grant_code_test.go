package proxyprovider_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestCodeAttacks(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	otherVerifier := strings.Repeat("v", 43)
	rows := []struct {
		name   string
		client *oauth.Client
		change func(*authserver.CodeExchange)
		want   string
	}{
		{"another client", publicClient("evil"), nil, "invalid_grant"},
		{"redirect swap", nil, func(x *authserver.CodeExchange) { x.RedirectURI = "https://evil.example/callback" }, "invalid_grant"},
		{"redirect left out", nil, func(x *authserver.CodeExchange) { x.RedirectURI = "" }, "invalid_grant"},
		{"redirect with a slash more", nil, func(x *authserver.CodeExchange) { x.RedirectURI += "/" }, "invalid_grant"},
		{"wrong verifier", nil, func(x *authserver.CodeExchange) { x.Verifier = otherVerifier }, "invalid_grant"},
		{"no verifier", nil, func(x *authserver.CodeExchange) { x.Verifier = "" }, "invalid_grant"},
		{"the challenge as verifier", nil, func(x *authserver.CodeExchange) { x.Verifier = challenge }, "invalid_grant"},
		{"another resource", nil, func(x *authserver.CodeExchange) { x.Resource = "https://mcp.example.com/other" }, "invalid_target"},
		{"altered secret", nil, func(x *authserver.CodeExchange) { x.Code = x.Code[:len(x.Code)-4] + "AAAA" }, "invalid_grant"},
		{"secret cut off", nil, func(x *authserver.CodeExchange) { x.Code = x.Code[:22] }, "invalid_grant"},
		{"no secret", nil, func(x *authserver.CodeExchange) { x.Code = x.Code[:23] }, "invalid_grant"},
		{"unknown grant", nil, func(x *authserver.CodeExchange) { x.Code = "AAAAAAAAAAAAAAAAAAAAAA" + x.Code[22:] }, "invalid_grant"},
		{"nonsense", nil, func(x *authserver.CodeExchange) { x.Code = "\x00\n." }, "invalid_grant"},
		{"empty", nil, func(x *authserver.CodeExchange) { x.Code = "" }, "invalid_grant"},
	}
	for _, row := range rows {
		for _, used := range []bool{false, true} {
			name := row.name
			if used {
				name += ", after its redemption"
			}
			t.Run(name, func(t *testing.T) {
				code := w.code(g)
				var tokens *oauth.Tokens
				var err error
				if used {
					if tokens, err = g.ExchangeCode(t.Context(), publicClient("app"), exchange(code)); err != nil {
						t.Fatal(err)
					}
				}
				x, client := exchange(code), row.client
				if row.change != nil {
					row.change(&x)
				}
				if client == nil {
					client = publicClient("app")
				}
				_, err = g.ExchangeCode(t.Context(), client, x)
				wantError(t, "attack", err, row.want)
				// It harmed nothing.
				if !used {
					if tokens, err = g.ExchangeCode(t.Context(), publicClient("app"), exchange(code)); err != nil {
						t.Fatalf("the rightful redemption: %v", err)
					}
				}
				w.wantVerify(g, "access token", tokens.AccessToken, "")
				w.mustRefresh(g, tokens.RefreshToken)
			})
		}
	}
}

func TestCodeReplayWithEverythingRightRevokes(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	code := w.code(g)
	tokens, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := other.ChallengeForCode(t.Context(), publicClient("app"), code); err != nil || c != challenge {
		t.Errorf("the challenge of a used code: %q, %v; it is what makes the replay provable", c, err)
	}
	_, err = other.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	wantError(t, "replay", err, "invalid_grant")
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh after the replay", err, "invalid_grant")
	w.wantVerify(other, "access token on the node that saw the replay", tokens.AccessToken, "invalid_token")
	w.wantVerify(g, "access token on the other", tokens.AccessToken, "invalid_token")
}

func TestCodeReplayAfterItsTimeHarmsNothing(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	code := w.code(g)
	tokens, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	if err != nil {
		t.Fatal(err)
	}
	w.clock.advance(61 * time.Second)
	_, err = g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	wantError(t, "replay", err, "invalid_grant")
	w.mustRefresh(g, tokens.RefreshToken)
	_, err = g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	wantError(t, "replay after a refresh", err, "invalid_grant")
	w.wantVerify(g, "access token", tokens.AccessToken, "")
}

func TestCodeIsGoodFor60Seconds(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	code, late := w.code(g), w.code(g)
	w.clock.advance(59 * time.Second)
	if _, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code)); err != nil {
		t.Errorf("after 59 s: %v", err)
	}
	w.clock.advance(time.Second)
	_, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(late))
	wantError(t, "after 60 s", err, "invalid_grant")
	_, err = g.ChallengeForCode(t.Context(), publicClient("app"), late)
	wantError(t, "challenge after 60 s", err, "invalid_grant")
}

func TestConcurrentRedemptionHasOneWinner(t *testing.T) {
	w := newGrantsWorld(t)
	nodes := []*proxyprovider.Grants{w.node(), w.node()}
	code := w.code(nodes[0])
	var wg sync.WaitGroup
	results := make([]error, 64)
	for i := range results {
		wg.Go(func() {
			_, results[i] = nodes[i%2].ExchangeCode(t.Context(), publicClient("app"), exchange(code))
		})
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else {
			wantError(t, "loser", err, "invalid_grant")
		}
	}
	if won != 1 {
		t.Errorf("%d redemptions of one code", won)
	}
}

func TestCreateOnce(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	n := w.newGrant()
	code, err := g.Create(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create(t.Context(), n); !errors.Is(err, proxyprovider.ErrGrantExists) {
		t.Errorf("second Create: %v", err)
	}
	tokens, err := other.ExchangeCode(t.Context(), n.Client, exchange(code))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.RevokeToken(t.Context(), n.Client, authserver.Revocation{Token: tokens.RefreshToken}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create(t.Context(), n); !errors.Is(err, proxyprovider.ErrGrantExists) {
		t.Errorf("Create after the revocation: %v; a transaction must not come back", err)
	}

	var wg sync.WaitGroup
	n.ID = [16]byte{9}
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = g.Create(t.Context(), n) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, proxyprovider.ErrGrantExists) {
			t.Errorf("loser: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d grants were created under one id", won)
	}
}

func TestRedirectURIOmitted(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	for _, uri := range []string{"", callback} {
		code := w.code(g, func(n *proxyprovider.NewGrant) { n.RedirectURIOmitted = true })
		x := exchange(code)
		x.RedirectURI = uri
		if _, err := g.ExchangeCode(t.Context(), publicClient("app"), x); err != nil {
			t.Errorf("redirect_uri %q at the token endpoint: %v", uri, err)
		}
	}
	code := w.code(g, func(n *proxyprovider.NewGrant) { n.RedirectURIOmitted = true })
	x := exchange(code)
	x.RedirectURI = "https://evil.example/"
	_, err := g.ExchangeCode(t.Context(), publicClient("app"), x)
	wantError(t, "another redirect_uri", err, "invalid_grant")
}

func TestClientMustNotAuthenticateLess(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	with := func(method string) *oauth.Client {
		c := publicClient("app")
		c.TokenEndpointAuthMethod = method
		return c
	}
	for _, row := range []struct{ atLogin, later, want string }{
		{oauth.AuthMethodPrivateKeyJWT, oauth.AuthMethodNone, "invalid_grant"},
		{oauth.AuthMethodPrivateKeyJWT, oauth.AuthMethodClientSecretPost, "invalid_grant"},
		{oauth.AuthMethodClientSecretBasic, oauth.AuthMethodNone, "invalid_grant"},
		{oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost, ""},
		{oauth.AuthMethodNone, oauth.AuthMethodClientSecretBasic, ""},
		{oauth.AuthMethodPrivateKeyJWT, oauth.AuthMethodPrivateKeyJWT, ""},
	} {
		t.Run(row.atLogin+" then "+row.later, func(t *testing.T) {
			code := w.code(g, func(n *proxyprovider.NewGrant) { n.Client = with(row.atLogin) })
			_, err := g.ExchangeCode(t.Context(), with(row.later), exchange(code))
			wantError(t, "code", err, row.want)
			tokens := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Client = with(row.atLogin) })
			_, err = g.ExchangeRefreshToken(t.Context(), with(row.later), authserver.RefreshExchange{RefreshToken: tokens.RefreshToken})
			wantError(t, "refresh", err, row.want)
		})
	}
}

func TestTokenResponse(t *testing.T) {
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) { c.Claims = []string{"email", "groups"} })
	g := w.node()
	tokens := w.tokens(g)
	if tokens.TokenType != "Bearer" || tokens.Scope != "mcp:read mcp:write" || tokens.ExpiresIn == nil || *tokens.ExpiresIn != 15*time.Minute || tokens.RefreshToken == "" {
		t.Errorf("tokens %+v", tokens)
	}
	info, err := g.VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	extra := map[string]any{}
	for _, name := range []string{"email", "groups", proxyprovider.GrantIDClaim} {
		extra[name] = info.Extra[name]
	}
	want := map[string]any{"email": "alice@example.com", "groups": []any{"engineering"}, "grant_id": "AQEAAAAAAAAAAAAAAAAAAA"}
	if diff := cmp.Diff(want, extra); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got := *info
	got.Extra, got.Token = nil, ""
	wantInfo := oauth.TokenInfo{
		ClientID: "app", Scopes: []string{"mcp:read", "mcp:write"}, UserID: "alice", Issuer: issuer,
		Audience: []string{resource}, Resource: resource, ExpiresAt: w.clock.now().Add(15 * time.Minute),
	}
	if diff := cmp.Diff(wantInfo, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	noRefresh := publicClient("app")
	noRefresh.GrantTypes = []string{oauth.GrantTypeAuthorizationCode}
	tokens = w.tokens(g, func(n *proxyprovider.NewGrant) { n.Client = noRefresh })
	if tokens.RefreshToken != "" {
		t.Error("a client that did not register for refresh_token got one")
	}
	w.wantVerify(g, "its access token", tokens.AccessToken, "")
	w.clock.advance(15*time.Minute - time.Second)
	w.wantVerify(g, "its access token before it ends", tokens.AccessToken, "")
	w.clock.advance(time.Second)
	w.wantVerify(g, "its access token at its end", tokens.AccessToken, "invalid_token")
}

func TestCreateRefuses(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	for name, change := range map[string]func(*proxyprovider.NewGrant){
		"no client":      func(n *proxyprovider.NewGrant) { n.Client = nil },
		"no user":        func(n *proxyprovider.NewGrant) { n.Identity = nil },
		"no resource":    func(n *proxyprovider.NewGrant) { n.Resource = "" },
		"no challenge":   func(n *proxyprovider.NewGrant) { n.CodeChallenge = "" },
		"odd challenge":  func(n *proxyprovider.NewGrant) { n.CodeChallenge = challenge + "A" },
		"a scope of two": func(n *proxyprovider.NewGrant) { n.Scopes = []string{"a b"} },
		"a name beyond bounds": func(n *proxyprovider.NewGrant) {
			n.Client.ClientName = strings.Repeat("x", 65<<10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := g.Create(t.Context(), w.newGrant(change)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestLostAnswerOfTheStore(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	code := w.code(g)
	w.tokens(g) // makes the signing key
	w.faulty.loseAfter.Store(1)
	tokens, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	if err != nil {
		t.Fatalf("redemption that was written: %v", err)
	}
	w.faulty.loseAfter.Store(1)
	tokens = w.mustRefresh(g, tokens.RefreshToken)
	w.mustRefresh(g, tokens.RefreshToken)
	w.faulty.down.Store(true)
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "store down", err, "temporarily_unavailable")
	if e := oauth.AsError(err); e.HTTPStatus() != 503 {
		t.Errorf("status %d", e.HTTPStatus())
	}
	w.faulty.down.Store(false)
	w.mustRefresh(g, tokens.RefreshToken)
}

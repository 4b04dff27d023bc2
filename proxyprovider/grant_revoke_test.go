package proxyprovider_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestRevokeRefreshToken(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	bystander := w.tokens(g)
	revoke := func(client, token, hint string) error {
		return other.RevokeToken(t.Context(), publicClient(client), authserver.Revocation{Token: token, TokenTypeHint: hint})
	}
	wantError(t, "by another client", revoke("evil", tokens.RefreshToken, ""), "invalid_token")
	wantError(t, "unknown", revoke("app", "nonsense", "refresh_token"), "invalid_token")
	tokens = w.mustRefresh(g, tokens.RefreshToken)
	wantError(t, "with a wrong hint", revoke("app", tokens.RefreshToken, "access_token"), "")
	wantError(t, "again", revoke("app", tokens.RefreshToken, ""), "")
	_, err := w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh", err, "invalid_grant")
	w.wantVerify(other, "access token", tokens.AccessToken, "invalid_token")
	w.mustRefresh(g, bystander.RefreshToken)
	if diff := cmp.Diff([]string{"up-refresh-1"}, w.upstream.revoked); diff != "" {
		t.Errorf("revoked upstream, -want +got:\n%s", diff)
	}
}

func TestRevokeAccessToken(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	first := w.tokens(g)
	second := w.mustRefresh(g, first.RefreshToken)
	revoke := func(client, token string) error {
		return g.RevokeToken(t.Context(), publicClient(client), authserver.Revocation{Token: token, TokenTypeHint: "access_token"})
	}
	wantError(t, "by another client", revoke("evil", second.AccessToken), "invalid_token")
	w.wantVerify(g, "after that", second.AccessToken, "")
	wantError(t, "revocation", revoke("app", second.AccessToken), "")
	wantError(t, "again", revoke("app", second.AccessToken), "")
	w.wantVerify(g, "the revoked one", second.AccessToken, "invalid_token")
	w.wantVerify(g, "an older one", first.AccessToken, "invalid_token")
	_, err := w.refresh(g, first.RefreshToken)
	wantError(t, "the kept answer, which holds it", err, "invalid_grant")
	third := w.mustRefresh(other, second.RefreshToken)
	w.wantVerify(g, "the next one", third.AccessToken, "")
	w.clock.advance(5 * time.Second)
	w.wantVerify(other, "the revoked one elsewhere", second.AccessToken, "invalid_token")
}

func TestConnections(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	subject := proxyprovider.SubjectKey(upstreamIssuer, "alice")
	bob := func(n *proxyprovider.NewGrant) { n.Identity = &idp.Identity{Issuer: upstreamIssuer, Subject: "bob"} }
	list := func() (ids []string) {
		t.Helper()
		infos, err := other.ListBySubject(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			ids = append(ids, i.ID)
		}
		return ids
	}
	if got := list(); got != nil {
		t.Errorf("before: %v", got)
	}
	w.code(g) // never redeemed
	start := w.clock.now()
	first := w.tokens(g)
	w.clock.advance(time.Minute)
	second := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Client = publicClient("other") })
	bobs := w.tokens(g, bob)
	infos, err := other.ListBySubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	want := []proxyprovider.GrantInfo{
		{
			ClientID: "other", ClientName: "Client other", RedirectURI: callback, Scopes: []string{"mcp:read", "mcp:write"},
			Resource: resource, CreatedAt: start.Add(time.Minute), LastUsed: start.Add(time.Minute),
		},
		{
			ClientID: "app", ClientName: "Client app", RedirectURI: callback, Scopes: []string{"mcp:read", "mcp:write"},
			Resource: resource, CreatedAt: start, LastUsed: start,
		},
	}
	ids := list()
	for i := range infos {
		infos[i].ID = ""
	}
	if diff := cmp.Diff(want, infos); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	bobsSubject := proxyprovider.SubjectKey(upstreamIssuer, "bob")
	for _, row := range []struct{ subject, id string }{{bobsSubject, ids[0]}, {subject, "nonsense"}, {subject, "AAAAAAAAAAAAAAAAAAAAAA"}, {"", ids[0]}} {
		if err := other.RevokeGrant(t.Context(), row.subject, row.id); !errors.Is(err, proxyprovider.ErrGrantNotFound) {
			t.Errorf("RevokeGrant(%q, %q): %v", row.subject, row.id, err)
		}
	}
	w.wantVerify(other, "after foreign revocations", second.AccessToken, "")
	if err := other.RevokeGrant(t.Context(), subject, ids[0]); err != nil {
		t.Fatal(err)
	}
	w.wantVerify(other, "the revoked one", second.AccessToken, "invalid_token")
	w.wantVerify(other, "the other one", first.AccessToken, "")
	if diff := cmp.Diff(ids[1:], list()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	third := w.tokens(g)
	if err := other.RevokeAll(t.Context(), subject); err != nil {
		t.Fatal(err)
	}
	w.wantVerify(other, "first", first.AccessToken, "invalid_token")
	w.wantVerify(other, "third", third.AccessToken, "invalid_token")
	w.wantVerify(other, "bob's", bobs.AccessToken, "")
	if got := list(); got != nil {
		t.Errorf("after RevokeAll: %v", got)
	}
}

func TestRevokeClient(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	var doomed []*oauth.Tokens
	for i := range 5 {
		doomed = append(doomed, w.tokens(g, func(n *proxyprovider.NewGrant) {
			n.Identity = &idp.Identity{Issuer: upstreamIssuer, Subject: fmt.Sprint("user", i)}
		}))
	}
	code := w.code(g)
	safe := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Client = publicClient("other") })
	if err := other.RevokeClient(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	for _, tokens := range doomed {
		w.wantVerify(other, "access token", tokens.AccessToken, "invalid_token")
		_, err := w.refresh(g, tokens.RefreshToken)
		wantError(t, "refresh", err, "invalid_grant")
	}
	_, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	wantError(t, "a pending code", err, "invalid_grant")
	w.wantVerify(other, "another client's", safe.AccessToken, "")
}

func TestA51stGrantEndsTheLongestIdle(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	var all []*oauth.Tokens
	for range 50 {
		all = append(all, w.tokens(g))
		w.clock.advance(time.Second)
	}
	elsewhere := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Client = publicClient("other") })
	all[0] = w.mustRefresh(g, all[0].RefreshToken) // so the second is idle longest
	w.clock.advance(time.Second)
	last := w.tokens(g)
	_, err := w.refresh(g, all[1].RefreshToken)
	wantError(t, "the longest idle", err, "invalid_grant")
	for i, tokens := range append(all[2:], all[0], last) {
		w.wantVerify(g, fmt.Sprint("grant ", i), tokens.AccessToken, "")
	}
	w.wantVerify(g, "another client's", elsewhere.AccessToken, "")
	infos, err := g.ListBySubject(t.Context(), proxyprovider.SubjectKey(upstreamIssuer, "alice"))
	if err != nil || len(infos) != 51 {
		t.Errorf("%d grants, %v", len(infos), err)
	}
}

// Logins that were not finished leave nothing that pushes out real grants.
func TestUnfinishedLoginsEndNoGrant(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	w.clock.advance(20 * time.Minute)
	for i := range 120 {
		w.code(g)
		w.clock.advance(time.Duration(i) * time.Second)
	}
	w.mustRefresh(g, tokens.RefreshToken)
}

package proxyprovider_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// records returns the grant records in the store, as the grants wrote them.
func (w *grantsWorld) records() (records [][]byte) {
	w.t.Helper()
	st, err := w.sealed()
	if err != nil {
		w.t.Fatal(err)
	}
	err = st.Scan(context.Background(), "grant/", func(_ string, value []byte) error {
		records = append(records, value)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// fullGrant is a login as it is in practice: a sealed client_id of 200
// characters, and 300 bytes of upstream tokens.
func fullGrant(n *proxyprovider.NewGrant) {
	n.Client = publicClient(strings.Repeat("i", 200))
	n.Client.ClientName = "Visual Studio Code"
	n.Identity.Subject = "248289761001-248289761001"
	n.Upstream = &idp.Tokens{AccessToken: strings.Repeat("a", 200), RefreshToken: strings.Repeat("r", 100)}
}

func TestGrantRecordIsSmall(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g, fullGrant)
	client := publicClient(strings.Repeat("i", 200))
	for range 3 {
		w.clock.advance(15 * time.Minute)
		var err error
		tokens, err = g.ExchangeRefreshToken(t.Context(), client, authserver.RefreshExchange{RefreshToken: tokens.RefreshToken})
		if err != nil {
			t.Fatal(err)
		}
	}
	size := len(w.records()[0])
	t.Logf("a grant takes %d bytes, upstream tokens of 300 bytes included; the token response has %d", size, len(asJSON(t, tokens)))
	if size > 300+700 {
		t.Errorf("a grant takes %d bytes", size)
	}
}

// Whoever reads the store, keys and all, finds no token of a client in it.
func TestRecordHoldsNoToken(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	code := w.code(g)
	tokens, err := g.ExchangeCode(t.Context(), publicClient("app"), exchange(code))
	if err != nil {
		t.Fatal(err)
	}
	next := w.mustRefresh(g, tokens.RefreshToken)
	record := w.records()[0]
	for name, secret := range map[string]string{
		"code": code, "access token": tokens.AccessToken, "refresh token": tokens.RefreshToken,
		"next access token": next.AccessToken, "next refresh token": next.RefreshToken,
	} {
		_, tail, _ := strings.Cut(secret, ".")
		for _, piece := range []string{secret, tail, secret[len(secret)/2:]} {
			if piece != "" && bytes.Contains(record, []byte(piece)) {
				t.Errorf("the record holds the %s", name)
			}
		}
	}
}

func TestNewerRecordIsRefused(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	st, err := w.sealed()
	if err != nil {
		t.Fatal(err)
	}
	info, err := g.VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.Extra[proxyprovider.GrantIDClaim].(string)
	record := w.records()[0]
	record[0] = 2
	if err := st.Put(t.Context(), "grant/"+id, record, time.Hour); err != nil {
		t.Fatal(err)
	}
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh", err, "temporarily_unavailable")
	if !strings.Contains(err.Error(), "newer version") {
		t.Errorf("the operator reads %v", err)
	}
	w.wantVerify(w.node(), "access token", tokens.AccessToken, "temporarily_unavailable")
}

func FuzzGrantRecord(f *testing.F) {
	w := newGrantsWorld(f)
	g := w.node()
	w.code(g, fullGrant)
	w.code(g, func(n *proxyprovider.NewGrant) {
		n.Upstream, n.RedirectURIOmitted = nil, true
		n.Identity.Claims = map[string]any{"locale": "en", "n": 1.5, "a": []any{"x"}}
		n.ClientMetadataHash = bytes.Repeat([]byte{7}, 32)
	})
	tokens := w.tokens(g)
	w.mustRefresh(g, tokens.RefreshToken)
	revoked := w.tokens(g)
	if err := g.RevokeToken(context.Background(), publicClient("app"), authserver.Revocation{Token: revoked.RefreshToken}); err != nil {
		f.Fatal(err)
	}
	records := w.records()
	if len(records) != 4 {
		f.Fatalf("%d records", len(records))
	}
	for _, r := range records {
		again, err := proxyprovider.ReencodeGrant(r)
		if err != nil || !bytes.Equal(again, r) {
			f.Fatalf("a record of ours does not survive: %v\n%x\n%x", err, r, again)
		}
		f.Add(r)
		f.Add(r[:len(r)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		once, err := proxyprovider.ReencodeGrant(b)
		if err != nil {
			return
		}
		twice, err := proxyprovider.ReencodeGrant(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%x becomes %x and then %x, %v", b, once, twice, err)
		}
	})
}

func FuzzRefreshToken(f *testing.F) {
	w := newGrantsWorld(f)
	g := w.node()
	token := w.tokens(g).RefreshToken
	f.Add(token)
	f.Add(token[:90])
	f.Add(strings.Repeat("A", 91))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if again, ok := proxyprovider.ReencodeRefreshToken(s); ok && again != s {
			t.Errorf("%q is another spelling of %q", s, again)
		}
		if s == token {
			return
		}
		_, err := g.ExchangeRefreshToken(context.Background(), publicClient("app"), authserver.RefreshExchange{RefreshToken: s})
		if oauth.AsError(err).Code != "invalid_grant" {
			t.Errorf("%q: %v", s, err)
		}
	})
}

package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// fullDisk is a provider that cannot save tokens for a while.
type fullDisk struct {
	*authclient.Web
	full *atomic.Bool
}

func (d fullDisk) SaveTokens(ctx context.Context, tokens *authclient.Tokens) error {
	if d.full.Load() {
		return errDisk
	}
	return d.Web.SaveTokens(ctx, tokens)
}

// Tokens that cannot be saved are used, refreshed with their own refresh token,
// and saved when that works again.
func TestTokensThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	disk := fullDisk{p, new(atomic.Bool)}
	s.saved(t, store, "old", "refresh-0")
	_, client := transport(t, s, disk, authclient.TransportOptions{})
	send := func() {
		t.Helper()
		if status, _, err := text(t, client, post(t, s.mcpURL(), "")); status != 200 || err != nil {
			t.Errorf("status %d, error %v", status, err)
		}
	}
	disk.full.Store(true)
	send()
	send()
	s.accept("token-1", false)
	send()
	var sent []string
	for _, r := range s.to("/token") {
		sent = append(sent, r.Form.Get("refresh_token"))
	}
	if diff := cmp.Diff([]string{"refresh-0", "refresh-1"}, sent); diff != "" {
		t.Error(diff)
	}
	if tokens, err := store.Tokens(t.Context(), ""); err != nil || tokens.AccessToken != "old" {
		t.Errorf("stored %+v, %v", tokens, err)
	}
	disk.full.Store(false)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		send()
		tokens, err := store.Tokens(t.Context(), "")
		if err == nil && tokens.AccessToken == "token-2" && tokens.RefreshToken == "refresh-2" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("never saved: %+v, %v", tokens, err)
		}
	}
}

// What somebody else has saved meanwhile is newer.
func TestUnsavedTokensGiveWay(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	disk := fullDisk{p, new(atomic.Bool)}
	s.saved(t, store, "old", "refresh-0")
	tr, client := transport(t, s, disk, authclient.TransportOptions{})
	disk.full.Store(true)
	if _, _, err := text(t, client, post(t, s.mcpURL(), "")); err != nil {
		t.Fatal(err)
	}
	if tokens, err := tr.Tokens(t.Context()); err != nil || tokens.AccessToken != "token-1" {
		t.Errorf("%+v, %v", tokens, err)
	}
	s.saved(t, store, "of-a-new-login", "refresh-x")
	if tokens, err := tr.Tokens(t.Context()); err != nil || tokens.AccessToken != "of-a-new-login" {
		t.Errorf("%+v, %v", tokens, err)
	}
}

// The caller of Auth gets the tokens, and an error that does not send the user
// away.
func TestAuthReturnsUnsavedTokens(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), unsaving{p}, authclient.Options{ServerURL: s.mcpURL()})
	if !errors.Is(err, authclient.ErrNotSaved) || errors.Is(err, authclient.ErrUnauthorized) || result.Tokens == nil || result.Tokens.RefreshToken != "refresh-1" {
		t.Errorf("%+v, %v", result, err)
	}
}

// A caller that leaves during a refresh does not make the next one repeat it with
// the same refresh token, at a provider that is no Locker either.
func TestAbandonedRefreshIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	_, client := transport(t, s, minimal{p}, authclient.TransportOptions{})
	ctx, leave := context.WithCancel(t.Context())
	answer := make(chan struct{})
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		leave()
		<-answer
		s.token(w, r)
	})
	if _, _, err := text(t, client, post(t, s.mcpURL(), "").WithContext(ctx)); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	second := make(chan error, 1)
	go func() {
		resp, err := client.Do(post(t, s.mcpURL(), ""))
		if err == nil {
			_ = resp.Body.Close()
		}
		second <- err
	}()
	time.Sleep(300 * time.Millisecond) // in which the second one would refresh
	close(answer)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if got := len(s.to("/token")); got != 1 {
		t.Errorf("%d refreshes", got)
	}
}

// Tokens that are dead and cannot be refreshed are forgotten, so that the user is
// asked before the next request is sent. One that is only too narrow stays.
func TestDeadTokensWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		expired, live bool
		attempts      int // at the MCP server
	}{
		{"refused", false, false, 1},
		{"expired", true, false, 0},
		{"too narrow", false, true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.accept("old", test.live)
			s.wants("mcp:write", false)
			p, store := web(t, nil)
			s.saved(t, store, "old", "")
			if test.expired {
				tokens, _ := store.Tokens(t.Context(), "")
				expired := *tokens
				expired.ExpiresAt = time.Now().Add(-time.Second)
				if err := store.SaveTokens(t.Context(), &expired); err != nil {
					t.Fatal(err)
				}
			}
			_, client := transport(t, s, p, authclient.TransportOptions{})
			_, _, err := text(t, client, post(t, s.mcpURL(), ""))
			var unauthorized *authclient.UnauthorizedError
			if !errors.As(err, &unauthorized) || unauthorized.Result == nil || len(s.to("/mcp")) != test.attempts {
				t.Errorf("error %v, requests %v", err, s.lines())
			}
			if tokens, err := store.Tokens(t.Context(), ""); err != nil || (tokens != nil) != test.live {
				t.Errorf("tokens %+v, error %v", tokens, err)
			}
		})
	}
}

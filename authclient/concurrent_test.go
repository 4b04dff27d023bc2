package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
)

const callers = 100

// together runs fn in many goroutines that begin at once.
func together(t *testing.T, fn func(i int) error) {
	t.Helper()
	begin := make(chan struct{})
	failed := make(chan error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			<-begin
			failed <- fn(i)
		})
	}
	close(begin)
	all.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
}

// stores are the ready stores.
func stores(t *testing.T, s *scripted) map[string]authclient.Store {
	t.Helper()
	file, err := authclient.OpenFileStore(filepath.Join(t.TempDir(), "credentials.json"), authclient.FileOptions{ServerURL: s.mcpURL()})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]authclient.Store{"memory": authclient.NewMemoryStore(), "file": file}
}

// Of many requests with one expired token one refreshes it.
func TestManyRequestsOneRefresh(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "file"} {
		for name, expires := range map[string]time.Time{"by our clock": time.Now().Add(-time.Hour), "says the server": {}} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				s := newScripted(t)
				store := stores(t, s)[kind]
				s.saved(t, store, "old", "refresh-0")
				tokens, err := store.Tokens(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				expired := *tokens
				expired.ExpiresAt = expires
				if err := store.SaveTokens(t.Context(), &expired); err != nil {
					t.Fatal(err)
				}
				p, err := authclient.NewWeb(store, authclient.WebOptions{RedirectURL: callbackURL})
				if err != nil {
					t.Fatal(err)
				}
				_, client := transport(t, s, p, authclient.TransportOptions{})
				together(t, func(int) error {
					status, _, err := text(t, client, post(t, s.mcpURL(), "hello"))
					if err == nil && status != 200 {
						err = errors.New(http.StatusText(status))
					}
					return err
				})
				if got := len(s.to("/token")); got != 1 {
					t.Errorf("%d refreshes", got)
				}
			})
		}
	}
}

// Several transports, as several processes have, over one file.
func TestManyTransportsOneRefresh(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	path := filepath.Join(t.TempDir(), "credentials.json")
	var clients [5]*http.Client
	for i := range clients {
		store, err := authclient.OpenFileStore(path, authclient.FileOptions{ServerURL: s.mcpURL()})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.saved(t, store, "old", "refresh-0")
		}
		p, err := authclient.NewWeb(store, authclient.WebOptions{RedirectURL: callbackURL})
		if err != nil {
			t.Fatal(err)
		}
		_, clients[i] = transport(t, s, p, authclient.TransportOptions{})
	}
	together(t, func(i int) error {
		_, _, err := text(t, clients[i%len(clients)], post(t, s.mcpURL(), "hello"))
		return err
	})
	if got := len(s.to("/token")); got != 1 {
		t.Errorf("%d refreshes", got)
	}
}

// Auth itself, called by many who know nothing of each other.
func TestManyAuthsOneRefresh(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	together(t, func(int) error {
		result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), RefusedToken: "old"})
		if err == nil && result.Tokens.AccessToken != "token-1" {
			err = errors.New(result.Tokens.AccessToken)
		}
		return err
	})
	if got := len(s.to("/token")); got != 1 {
		t.Errorf("%d refreshes", got)
	}
}

// A failure is shared as well: a server in trouble is not asked by everybody.
func TestManyRequestsOneFailure(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	var waiting sync.WaitGroup
	waiting.Add(callers)
	s.handle("/mcp", func(w http.ResponseWriter, r *http.Request) {
		waiting.Done()
		waiting.Wait() // all have been refused before the first refreshes
		s.mcp(w, r)
	})
	release := make(chan struct{})
	s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, client := transport(t, s, p, authclient.TransportOptions{})
	go func() {
		waiting.Wait()
		time.Sleep(200 * time.Millisecond) // for the requests to join
		close(release)
	}()
	together(t, func(int) error {
		if _, _, err := text(t, client, post(t, s.mcpURL(), "")); !errors.Is(err, authclient.ErrUnavailable) {
			return errors.New("not ErrUnavailable")
		}
		return nil
	})
	if got := len(s.to("/token")); got > callers/10 {
		t.Errorf("%d refreshes", got)
	}
}

// Who leaves does not take the others along.
func TestLeavingAFlight(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	asked, answer := make(chan struct{}), make(chan struct{})
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answer
		s.token(w, r)
	})
	_, client := transport(t, s, p, authclient.TransportOptions{})
	ctx, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := text(t, client, post(t, s.mcpURL(), "").WithContext(ctx))
		left <- err
	}()
	<-asked
	go func() {
		_, _, err := text(t, client, post(t, s.mcpURL(), ""))
		stayed <- err
	}()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(answer)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed: %v", err)
	}
	if got := len(s.to("/token")); got != 1 {
		t.Errorf("%d refreshes", got)
	}
}

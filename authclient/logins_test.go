package authclient_test

import (
	"errors"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// Two programs with one store sign in at once: both finish, in any order, and a
// callback counts once.
func TestTwoLoginsWithOneStore(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "file"} {
		for _, first := range []int{0, 1} {
			t.Run(kind+[]string{", the first one first", ", the second one first"}[first], func(t *testing.T) {
				t.Parallel()
				s := newScripted(t)
				store := stores(t, s)[kind]
				var programs [2]authclient.Provider
				var begun [2]authclient.Options
				for i := range programs {
					p, err := authclient.NewWeb(store, authclient.WebOptions{RedirectURL: []string{"http://127.0.0.1:1111/callback", "http://127.0.0.1:2222/callback"}[i]})
					if err != nil {
						t.Fatal(err)
					}
					programs[i], begun[i].ServerURL = p, s.mcpURL()
					result, err := authclient.Auth(t.Context(), p, begun[i])
					if err != nil || result.Status != authclient.Redirect {
						t.Fatalf("%+v, %v", result, err)
					}
					begun[i].Callback = browse(t, result.AuthorizationURL)
				}
				for _, i := range []int{first, 1 - first} {
					if result, err := authclient.Auth(t.Context(), programs[i], begun[i]); err != nil || result.Status != authclient.Authorized {
						t.Errorf("program %d: %+v, %v", i, result, err)
					}
					if _, err := authclient.Auth(t.Context(), programs[i], begun[i]); !errors.Is(err, authclient.ErrState) {
						t.Errorf("program %d, its callback again: %v", i, err)
					}
				}
			})
		}
	}
}

// Logins that nobody finishes do not pile up.
func TestLoginsAreBounded(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: s.mcpURL()}
	first, err := authclient.Auth(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := authclient.Auth(t.Context(), p, o); err != nil {
			t.Fatal(err)
		}
	}
	o.Callback = browse(t, first.AuthorizationURL)
	if _, err := authclient.Auth(t.Context(), p, o); !errors.Is(err, authclient.ErrState) {
		t.Errorf("error %v", err)
	}
}

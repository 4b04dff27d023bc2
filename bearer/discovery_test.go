package bearer_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func newDiscovery(t *testing.T, c bearer.DiscoveryConfig) *bearer.Discovery {
	t.Helper()
	if c.Client == nil {
		c.Client = client(t)
	}
	d, err := bearer.NewDiscovery(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiscoveryServesTheDocument(t *testing.T) {
	i := newIssuer(t)
	document := i.metadata(object{"x_unknown": object{"b": 1, "a": 2}, "introspection_endpoint": nil})
	i.answer(metadataPath, 200, document)
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL})
	raw, err := d.Document(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(document, string(raw)); diff != "" {
		t.Errorf("Document returns the bytes as received: %s", diff)
	}
	metadata, err := d.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if metadata.Issuer != i.URL || metadata.JWKSURI != i.URL+jwksPath || string(metadata.Extra["x_unknown"]) != `{"a":2,"b":1}` {
		t.Errorf("got %+v", metadata)
	}
	if n := i.count(metadataPath); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestDiscoveryProbesInOrder(t *testing.T) {
	const (
		inserted       = metadataPath + "/t"
		openidInserted = openidPath + "/t"
		openidAppended = "/t" + openidPath
	)
	for _, test := range []struct {
		name, path string
		answers    map[string]int // path: status; 200 is the document, 0 is garbage
		asked      []string
		fails      bool
	}{
		{"root, RFC 8414", "", map[string]int{metadataPath: 200, openidPath: 200}, []string{metadataPath}, false},
		{"root, OpenID only", "", map[string]int{openidPath: 200}, []string{metadataPath, openidPath}, false},
		{"path, inserted", "/t", map[string]int{inserted: 200, openidInserted: 200, openidAppended: 200}, []string{inserted}, false},
		{"path, OpenID inserted", "/t", map[string]int{openidInserted: 200, openidAppended: 200}, []string{inserted, openidInserted}, false},
		{"path, OpenID appended", "/t", map[string]int{openidAppended: 200}, []string{inserted, openidInserted, openidAppended}, false},
		{"after 401 and 410", "/t", map[string]int{inserted: 401, openidInserted: 410, openidAppended: 200}, []string{inserted, openidInserted, openidAppended}, false},
		{"after 500 and garbage", "/t", map[string]int{inserted: 500, openidInserted: 0, openidAppended: 200}, []string{inserted, openidInserted, openidAppended}, false},
		{"after a redirect", "", map[string]int{metadataPath: 302, openidPath: 200}, []string{metadataPath, openidPath}, false},
		{"204 is no document", "", map[string]int{metadataPath: 204, openidPath: 200}, []string{metadataPath, openidPath}, false},
		{"nowhere", "/t", nil, []string{inserted, openidInserted, openidAppended}, true},
		{"a document for the root does not count", "/t", map[string]int{metadataPath: 200}, []string{inserted, openidInserted, openidAppended}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			var mu sync.Mutex
			var asked []string
			for _, path := range []string{metadataPath, openidPath, inserted, openidInserted, openidAppended} {
				status, ok := test.answers[path]
				i.handle(path, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					asked = append(asked, r.URL.Path)
					mu.Unlock()
					switch {
					case !ok:
						http.NotFound(w, r)
					case status == 0:
						_, _ = w.Write([]byte("<html>"))
					default:
						if status == 302 {
							w.Header().Set("Location", "/elsewhere")
						}
						w.WriteHeader(status)
						if status == 200 {
							_, _ = w.Write([]byte(i.metadata(object{"issuer": i.URL + test.path})))
						}
					}
				})
			}
			i.answer("/elsewhere", 200, i.metadata(nil))
			d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL + test.path})
			_, err := d.Metadata(t.Context())
			if test.fails {
				wantError(t, err, oauth.ErrTemporarilyUnavailable, "The authorization server cannot be reached")
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.asked, asked); diff != "" {
				t.Error(diff)
			}
			if i.count("/elsewhere") != 0 {
				t.Error("a redirect was followed")
			}
		})
	}
}

func TestDiscoveryWithMetadataURL(t *testing.T) {
	i := newIssuer(t)
	i.answer("/custom", 200, i.metadata(nil))
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL, MetadataURL: i.URL + "/custom"})
	if _, err := d.Metadata(t.Context()); err != nil {
		t.Error(err)
	}
	i.answer("/custom", 404, "")
	d = newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL, MetadataURL: i.URL + "/custom"})
	_, err := d.Metadata(t.Context())
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "")
	if i.count(metadataPath) != 0 {
		t.Error("another document was tried")
	}
}

func TestDiscoveryRefusesDocuments(t *testing.T) {
	i := newIssuer(t)
	for _, test := range []struct{ name, body, want string }{
		{"other issuer", i.metadata(object{"issuer": "https://evil.example"}), `"https://evil.example", but "` + i.URL + `"`},
		{"issuer with a slash more", i.metadata(object{"issuer": i.URL + "/"}), `"` + i.URL + `/", but "` + i.URL + `"`},
		{"no issuer", i.metadata(object{"issuer": nil}), "issuer"},
		{"two issuers", `{"issuer":"https://evil.example","issuer":"` + i.URL + `"}`, "two members"},
		{"issuer in another case only", `{"ISSUER":"` + i.URL + `"}`, "issuer is required"},
		{"HTML", "<!doctype html>", "malformed"},
		{"array", "[]", "no metadata document"},
		{"10 MB", i.metadata(object{"x": strings.Repeat("x", 10<<20)}), "too large"},
		{"not UTF-8", "{\"issuer\":\"\xff\"}", "UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.answer(metadataPath, 200, test.body)
			d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL})
			_, err := d.Metadata(t.Context())
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "The authorization server cannot be reached")
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a cause with %s", err, test.want)
			}
			if len(err.Error()) > 2000 {
				t.Error("the error repeats the answer")
			}
		})
	}
}

func TestDiscoveryLoadsOnceForAll(t *testing.T) {
	i := newIssuer(t)
	asked, release := make(chan struct{}), make(chan struct{})
	i.handle(metadataPath, func(w http.ResponseWriter, _ *http.Request) {
		close(asked) // a second request would panic
		<-release
		_, _ = w.Write([]byte(i.metadata(nil)))
	})
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL})
	impatient, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := d.Metadata(impatient)
		gone <- err
	}()
	<-asked
	cancel()
	wantError(t, <-gone, oauth.ErrTemporarilyUnavailable, "") // whoever began the load may leave
	results := make(chan error, 20)
	for range cap(results) {
		go func() {
			_, err := d.Metadata(t.Context())
			results <- err
		}()
	}
	close(release)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestDiscoveryRemembersAFailureForASecond(t *testing.T) {
	i := newIssuer(t)
	var c clock
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL, MetadataURL: i.URL + "/custom", Now: c.now})
	for range 5 {
		_, err := d.Metadata(t.Context())
		wantError(t, err, oauth.ErrTemporarilyUnavailable, "")
		_ = d.Refresh(t.Context())
	}
	if n := i.count("/custom"); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	i.answer("/custom", 200, i.metadata(nil))
	c.advance(time.Second)
	if _, err := d.Metadata(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDiscoveryRefreshIsThrottled(t *testing.T) {
	i := newIssuer(t)
	var c clock
	d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: i.URL, Now: c.now})
	if _, err := d.Metadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.answer(metadataPath, 200, i.metadata(object{"jwks_uri": "https://new.example"}))
	for range 5 {
		if err := d.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := i.count(metadataPath); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	metadata, err := d.Metadata(t.Context())
	if err != nil || metadata.JWKSURI != "https://new.example" {
		t.Errorf("got %v, %v", metadata, err)
	}
	i.answer(metadataPath, 500, "")
	c.advance(10 * time.Second)
	wantError(t, d.Refresh(t.Context()), oauth.ErrTemporarilyUnavailable, "")
	if _, err := d.Metadata(t.Context()); err != nil {
		t.Errorf("the last good document stays: %v", err)
	}
	if n := i.count(metadataPath); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

func TestDiscoveryWithAURLThatHangsFindsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == metadataPath {
				<-r.Context().Done()
				return
			}
			_, _ = w.Write([]byte(`{"issuer":"https://idp.example"}`))
		})}}
		d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: "https://idp.example", Client: c})
		start := time.Now()
		if _, err := d.Metadata(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestDiscoveryRunKeepsTheDocumentFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		version, up := "1", true
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if !up {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			_, _ = w.Write([]byte(`{"issuer":"https://idp.example","service_documentation":"` + version + `"}`))
		})}}
		d := newDiscovery(t, bearer.DiscoveryConfig{Issuer: "https://idp.example", Client: c})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.Run(ctx)
		for _, step := range []struct {
			version string
			up      bool
			want    string
		}{{"1", true, "1"}, {"2", true, "2"}, {"3", false, "2"}, {"4", true, "4"}} {
			mu.Lock()
			version, up = step.version, step.up
			mu.Unlock()
			time.Sleep(61 * time.Minute)
			metadata, err := d.Metadata(ctx)
			if err != nil || metadata.ServiceDocumentation != step.want {
				t.Errorf("%+v: got %v, %v", step, metadata, err)
			}
		}
	})
}

func TestNewDiscoveryRefuses(t *testing.T) {
	for _, c := range []bearer.DiscoveryConfig{
		{},
		{Issuer: "idp.example"},
		{Issuer: "ftp://idp.example"},
		{Issuer: "https://"},
		{Issuer: "https://:443"},
		{Issuer: "https://u:p@idp.example"},
		{Issuer: "https://idp.example/#f"},
		{Issuer: "https://idp.example/\x7f"},
		{Issuer: "https://idp.example", MetadataURL: "/relative"},
	} {
		if _, err := bearer.NewDiscovery(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

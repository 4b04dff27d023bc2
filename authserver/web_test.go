package authserver_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// page is what a URL of the web answers with.
type page struct {
	status      int    // 200 if 0
	contentType string // application/json if ""
	header      map[string]string
	body        string
	// reset breaks the connection.
	reset bool
	// wait holds the answer back until it is closed.
	wait chan struct{}
}

// web is all hosts that documents may be on, in one TLS server.
type web struct {
	server *httptest.Server
	client *http.Client

	mu     sync.Mutex
	pages  map[string]page // by URL
	hits   map[string]int
	inside int
	most   int
}

func newWeb(t testing.TB) *web {
	t.Helper()
	w := &web{pages: make(map[string]page), hits: make(map[string]int)}
	w.server = httptest.NewTLSServer(w)
	w.server.Config.ErrorLog = nil
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.server.Listener.Addr().String())
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // any host
		DisableKeepAlives: true,
	}
	w.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(w.server.Close)
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	address := "https://" + r.Host + r.URL.RequestURI()
	w.mu.Lock()
	p, ok := w.pages[address]
	w.hits[address]++
	w.inside++
	w.most = max(w.most, w.inside)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inside--
	}()
	if p.wait != nil {
		<-p.wait
	}
	switch {
	case !ok:
		p = page{status: http.StatusNotFound, body: "{}"}
	case p.reset:
		panic(http.ErrAbortHandler)
	}
	if p.contentType == "" {
		p.contentType = "application/json"
	}
	rw.Header().Set("Content-Type", p.contentType)
	for name, value := range p.header {
		rw.Header().Set(name, value)
	}
	if p.status != 0 {
		rw.WriteHeader(p.status)
	}
	_, _ = rw.Write([]byte(p.body))
}

func (w *web) put(address string, p page) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[address] = p
}

func (w *web) hitsOf(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hits[address]
}

func (w *web) allHits() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, hits := range w.hits {
		n += hits
	}
	return n
}

const documentURL = "https://client.example/oauth/client.json"

// document is a good metadata document; pairs override members, nil removes.
func document(t testing.TB, pairs ...any) string {
	t.Helper()
	m := map[string]any{
		"client_id":                  documentURL,
		"client_name":                "Example Client",
		"redirect_uris":              []string{callback},
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": "none",
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(m, pairs[i].(string))
		} else {
			m[pairs[i].(string)] = pairs[i+1]
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// newDocuments returns a Documents over the web with the clock.
func newDocuments(t testing.TB, w *web, now func() time.Time, configure ...func(*authserver.DocumentsConfig)) *authserver.Documents {
	t.Helper()
	config := authserver.DocumentsConfig{Client: w.client, Now: now}
	for _, c := range configure {
		c(&config)
	}
	documents, err := authserver.NewDocuments(config)
	if err != nil {
		t.Fatal(err)
	}
	return documents
}

func keyRing(t testing.TB, keys ...seal.Key) func() (*seal.Ring, error) {
	t.Helper()
	if len(keys) == 0 {
		keys = []seal.Key{seal.GenerateKey()}
	}
	ring, err := seal.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return func() (*seal.Ring, error) { return ring, nil }
}

// clientsSite is a Server whose clients are a Clients with documents of a web.
type clientsSite struct {
	*site
	web     *web
	clients *authserver.Clients
}

func newClientsSite(t testing.TB, configure ...func(*authserver.ClientsConfig, *authserver.DocumentsConfig)) *clientsSite {
	t.Helper()
	now := &clock{now: time.Unix(1_800_000_000, 0)}
	w := newWeb(t)
	config := authserver.ClientsConfig{Issuer: issuer, Keys: keyRing(t), Dynamic: true, Now: now.Now}
	documents := authserver.DocumentsConfig{Client: w.client, Now: now.Now}
	for _, c := range configure {
		c(&config, &documents)
	}
	if config.Documents == nil {
		d, err := authserver.NewDocuments(documents)
		if err != nil {
			t.Fatal(err)
		}
		config.Documents = d
	}
	clients, err := authserver.NewClients(config)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		p.store = clients.Store()
		c.Now = now.Now
		c.RedirectPolicy = config.Policy
		c.RateLimits.Off = true
	})
	s.clock = now
	return &clientsSite{site: s, web: w, clients: clients}
}

// register registers and returns the answer's client.
func (s *clientsSite) register(body string) *oauth.Client {
	s.t.Helper()
	a := s.postJSON("/register", body)
	if a.Status != http.StatusCreated {
		s.t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	var c oauth.Client
	if err := json.Unmarshal([]byte(a.Body), &c); err != nil {
		s.t.Fatal(err)
	}
	return &c
}

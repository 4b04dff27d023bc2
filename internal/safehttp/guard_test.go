package safehttp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

// internet answers every name and every connection with one TLS server, whose
// certificate is good for example.com and 127.0.0.1.
type internet struct {
	server  *httptest.Server
	answers func(host string) []string // addresses of a host
	dialled []string
	looked  atomic.Int32
}

func newInternet(t *testing.T, h http.HandlerFunc) *internet {
	t.Helper()
	if h == nil {
		h = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) }
	}
	n := &internet{server: httptest.NewTLSServer(h)}
	n.server.Config.ErrorLog = nil
	t.Cleanup(n.server.Close)
	return n
}

// options reach the server after all checks have passed.
func (n *internet) options(origins ...string) safehttp.GuardOptions {
	pool := x509.NewCertPool()
	pool.AddCert(n.server.Certificate())
	return safehttp.GuardOptions{
		AllowOrigins: origins,
		RootCAs:      pool,
		Lookup: func(_ context.Context, host string) (addresses []netip.Addr, err error) {
			n.looked.Add(1)
			for _, a := range n.answers(host) {
				addresses = append(addresses, netip.MustParseAddr(a))
			}
			return addresses, nil
		},
	}.WithDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		n.dialled = append(n.dialled, address)
		return (&net.Dialer{}).DialContext(ctx, network, n.server.Listener.Addr().String())
	})
}

func guarded(t *testing.T, o safehttp.GuardOptions) *http.Client {
	t.Helper()
	client, err := safehttp.NewGuardedClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func public(string) []string { return []string{"93.184.215.14"} }

func TestGuardRefuses(t *testing.T) {
	for _, test := range []struct {
		name, url string
		answers   []string // of the name server
		origins   []string // exempt
	}{
		{"http", "http://example.com/c", []string{"93.184.215.14"}, nil},
		{"another scheme", "ftp://example.com/c", []string{"93.184.215.14"}, nil},
		{"another port", "https://example.com:8443/c", []string{"93.184.215.14"}, nil},
		{"port 0", "https://example.com:0/c", []string{"93.184.215.14"}, nil},
		{"userinfo", "https://user@example.com/c", []string{"93.184.215.14"}, nil},
		{"userinfo with password", "https://example.org:x@example.com/c", []string{"93.184.215.14"}, nil},
		{"private name", "https://example.com/c", []string{"10.1.2.3"}, nil},
		{"loopback name", "https://localhost/c", []string{"127.0.0.1"}, nil},
		{"private beside public", "https://example.com/c", []string{"93.184.215.14", "192.168.0.1"}, nil},
		{"public beside private", "https://example.com/c", []string{"192.168.0.1", "93.184.215.14"}, nil},
		{"private IPv6 beside public", "https://example.com/c", []string{"93.184.215.14", "fd00::1"}, nil},
		{"loopback literal", "https://127.0.0.1/c", nil, nil},
		{"IPv6 loopback literal", "https://[::1]/c", nil, nil},
		{"mapped literal of a public address", "https://[::ffff:93.184.215.14]/c", nil, nil},
		{"mapped literal", "https://[::ffff:127.0.0.1]/c", nil, nil},
		{"mapped answer", "https://example.com/c", []string{"::ffff:10.0.0.1"}, nil},
		{"decimal host", "https://2130706433/c", []string{"93.184.215.14"}, nil},
		{"hexadecimal host", "https://0x7f000001/c", []string{"93.184.215.14"}, nil},
		{"octal host", "https://0177.0.0.1/c", []string{"93.184.215.14"}, nil},
		{"short host", "https://127.1/c", []string{"93.184.215.14"}, nil},
		{"host that ends in hexadecimal", "https://127.0.0.0x1/c", []string{"93.184.215.14"}, nil},
		{"host that ends in a number and a dot", "https://127.1./c", []string{"93.184.215.14"}, nil},
		{"cloud metadata", "https://169.254.169.254/latest/meta-data/", nil, nil},
		{"exempt origin at link-local", "https://in.example/c", []string{"169.254.169.254"}, []string{"https://in.example"}},
		{"exempt origin at link-local IPv6", "https://in.example/c", []string{"fe80::1"}, []string{"https://in.example"}},
		{"exempt origin at a metadata address in a private range", "https://in.example/c", []string{"fd00:ec2::254"}, []string{"https://in.example"}},
		{"exempt origin at a metadata address in the shared range", "https://in.example/c", []string{"100.100.100.200"}, []string{"https://in.example"}},
		{"exempt origin at multicast", "https://in.example/c", []string{"224.0.0.1"}, []string{"https://in.example"}},
		{"exempt origin at nowhere", "https://in.example/c", []string{"0.0.0.0"}, []string{"https://in.example"}},
		{"exempt origin, other port", "https://in.example:8443/c", []string{"10.0.0.1"}, []string{"https://in.example"}},
		{"exempt origin, other scheme", "http://localhost/c", []string{"127.0.0.1"}, []string{"https://localhost"}},
		{"exempt origin, subdomain", "https://a.in.example/c", []string{"10.0.0.1"}, []string{"https://in.example"}},
		{"exempt origin as userinfo", "https://in.example@evil.example/c", []string{"10.0.0.1"}, []string{"https://in.example"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newInternet(t, nil)
			n.answers = func(string) []string { return test.answers }
			answer, err := safehttp.Do(guarded(t, n.options(test.origins...)), get(t, test.url), 0)
			if !errors.Is(err, safehttp.ErrRefused) {
				t.Errorf("answer %v, error %v", answer, err)
			}
			if len(n.dialled) > 0 {
				t.Errorf("connected to %v", n.dialled)
			}
		})
	}
}

func TestGuardAllows(t *testing.T) {
	for _, test := range []struct {
		name, url string
		answers   []string
		origins   []string
		dialled   string
	}{
		{"public name", "https://example.com/c", []string{"93.184.215.14"}, nil, "93.184.215.14:443"},
		{"public name with its port", "https://example.com:443/c", []string{"93.184.215.14"}, nil, "93.184.215.14:443"},
		{"public IPv6", "https://example.com/c", []string{"2606:2800:21f:cb07:6820:80da:af6b:8b2c"}, nil, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443"},
		{"mapped answer of a public address", "https://example.com/c", []string{"::ffff:93.184.215.14"}, nil, "93.184.215.14:443"},
		{"exempt origin, private", "https://example.com/c", []string{"10.0.0.1"}, []string{"https://example.com"}, "10.0.0.1:443"},
		{"exempt origin in capitals", "https://EXAMPLE.com/c", []string{"10.0.0.1"}, []string{"https://Example.com:443"}, "10.0.0.1:443"},
		{"exempt origin, shared range", "https://example.com/c", []string{"100.64.0.1"}, []string{"https://example.com"}, "100.64.0.1:443"},
		{"exempt origin, unique local", "https://example.com/c", []string{"fd12::1"}, []string{"https://example.com"}, "[fd12::1]:443"},
		{"exempt origin, public", "https://example.com/c", []string{"93.184.215.14"}, []string{"https://example.com"}, "93.184.215.14:443"},
		{"exempt origin, its port", "https://example.com:8443/c", []string{"10.0.0.1"}, []string{"https://example.com:8443"}, "10.0.0.1:8443"},
		{"exempt loopback literal", "https://127.0.0.1:8443/c", nil, []string{"https://127.0.0.1:8443"}, "127.0.0.1:8443"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newInternet(t, nil)
			n.answers = func(string) []string { return test.answers }
			answer, err := safehttp.Do(guarded(t, n.options(test.origins...)), get(t, test.url), 0)
			if err != nil || string(answer.Body) != "secret" {
				t.Fatalf("answer %v, error %v", answer, err)
			}
			if diff := cmp.Diff([]string{test.dialled}, n.dialled); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// http is served at a listed loopback origin, through the real dialer.
func TestGuardAllowsListedLoopback(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("dev")) }))
	defer server.Close()
	client := guarded(t, safehttp.GuardOptions{AllowOrigins: []string{server.URL}})
	if answer, err := safehttp.Do(client, get(t, server.URL+"/c"), 0); err != nil || string(answer.Body) != "dev" {
		t.Errorf("answer %v, error %v", answer, err)
	}
	if _, err := safehttp.Do(guarded(t, safehttp.GuardOptions{}), get(t, server.URL+"/c"), 0); !errors.Is(err, safehttp.ErrRefused) {
		t.Errorf("not listed: %v", err)
	}
}

// The name server answers with a public address first and a private one then:
// each request goes where its own check looked, or nowhere.
func TestGuardHoldsAgainstRebinding(t *testing.T) {
	n := newInternet(t, nil)
	n.answers = func(string) []string {
		if n.looked.Load() == 1 {
			return []string{"93.184.215.14"}
		}
		return []string{"127.0.0.1"}
	}
	client := guarded(t, n.options())
	if _, err := safehttp.Do(client, get(t, "https://example.com/c"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := safehttp.Do(client, get(t, "https://example.com/c"), 0); !errors.Is(err, safehttp.ErrRefused) {
		t.Errorf("second request: %v", err)
	}
	if diff := cmp.Diff([]string{"93.184.215.14:443"}, n.dialled); diff != "" || n.looked.Load() != 2 {
		t.Errorf("%d lookups, %s", n.looked.Load(), diff)
	}
}

// What the socket connects to is checked by itself.
func TestGuardChecksTheConnectedAddress(t *testing.T) {
	for _, test := range []struct {
		address         string
		public, private bool // allowed for a stranger's URL, for an exempt origin
	}{
		{"93.184.215.14:443", true, true},
		{"[2606:2800:21f::1]:443", true, true},
		{"10.0.0.1:443", false, true},
		{"172.16.0.1:443", false, true},
		{"192.168.1.1:443", false, true},
		{"127.0.0.1:443", false, true},
		{"127.9.9.9:443", false, true},
		{"100.64.0.1:443", false, true},
		{"[::1]:443", false, true},
		{"[fd00::1]:443", false, true},
		{"0.0.0.0:443", false, false},
		{"0.1.2.3:443", false, false},
		{"[::]:443", false, false},
		{"169.254.169.254:443", false, false},
		{"169.254.170.2:443", false, false},
		{"[fe80::1]:443", false, false},
		{"[fe80::1%eth0]:443", false, false},
		{"[fd00:ec2::254]:443", false, false},
		{"[fd20:ce::254]:443", false, false},
		{"100.100.100.200:443", false, false},
		{"168.63.129.16:443", false, false},
		{"192.0.0.192:443", false, false},
		{"192.0.2.1:443", false, false},
		{"198.18.0.1:443", false, false},
		{"224.0.0.1:443", false, false},
		{"[ff02::1]:443", false, false},
		{"240.0.0.1:443", false, false},
		{"255.255.255.255:443", false, false},
		{"[::ffff:10.0.0.1]:443", false, false},
		{"[::ffff:169.254.169.254]:443", false, false},
		{"[::7f00:1]:443", false, false},
		{"[64:ff9b::a9fe:a9fe]:443", false, false},
		{"[64:ff9b::7f00:1]:443", false, false},
		{"[64:ff9b:1::a00:1]:443", false, false},
		{"[2002:7f00:1::]:443", false, false},
		{"[2002:a9fe:a9fe::1]:443", false, false},
		{"[2001::1]:443", false, false},
		{"[2001:db8::1]:443", false, false},
		{"[100::1]:443", false, false},
		{"[5f00::1]:443", false, false},
	} {
		for private, want := range map[bool]bool{false: test.public, true: test.private} {
			err := safehttp.ConnectCheck(test.address, private)
			if (err == nil) != want || err != nil && !errors.Is(err, safehttp.ErrRefused) {
				t.Errorf("%s, exempt %t: %v", test.address, private, err)
			}
		}
	}
}

func TestGuardFollowsNoRedirect(t *testing.T) {
	for _, target := range []string{"https://127.0.0.1/", "http://169.254.169.254/latest/", "https://example.com/elsewhere", "file:///etc/passwd"} {
		n := newInternet(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", target)
			w.WriteHeader(http.StatusFound)
		})
		n.answers = public
		answer, err := safehttp.Do(guarded(t, n.options()), get(t, "https://example.com/c"), 0)
		if err != nil || answer.Status != http.StatusFound || len(n.dialled) != 1 {
			t.Errorf("%s: answer %v, error %v, dialled %v", target, answer, err, n.dialled)
		}
	}
}

func TestGuardVerifiesCertificates(t *testing.T) {
	n := newInternet(t, nil)
	n.answers = public
	for _, url := range []string{"https://evil.example/c", "https://in.example/c"} {
		_, err := safehttp.Do(guarded(t, n.options("https://in.example")), get(t, url), 0)
		var wrong *tls.CertificateVerificationError
		if !errors.As(err, &wrong) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestGuardSendsNothingOfItsOwn(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	var connections atomic.Int32
	n := newInternet(t, func(w http.ResponseWriter, r *http.Request) {
		if cookie := r.Header.Get("Cookie"); cookie != "" {
			t.Errorf("a cookie: %s", cookie)
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	})
	n.answers = public
	options := n.options()
	client := guarded(t, options)
	for range 2 {
		if _, err := safehttp.Do(client, get(t, "https://example.com/c"), 0); err != nil {
			t.Fatal(err)
		}
	}
	connections.Store(int32(len(n.dialled)))
	if connections.Load() != 2 {
		t.Errorf("%d connections for 2 requests", connections.Load())
	}
	req := get(t, "https://example.com/c")
	req.Method = http.MethodPost
	if _, err := safehttp.Do(client, req, 0); !errors.Is(err, safehttp.ErrRefused) {
		t.Errorf("POST: %v", err)
	}
}

func TestGuardTriesFurtherAddresses(t *testing.T) {
	n := newInternet(t, nil)
	n.answers = func(string) []string { return []string{"93.184.215.14", "93.184.215.15"} }
	server := n.server.Listener.Addr().String()
	options := n.options().WithDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "93.184.215.14:443" {
			return nil, errors.New("connection refused")
		}
		return (&net.Dialer{}).DialContext(ctx, network, server)
	})
	if answer, err := safehttp.Do(guarded(t, options), get(t, "https://example.com/c"), 0); err != nil || answer.Status != http.StatusOK {
		t.Errorf("answer %v, error %v", answer, err)
	}
}

func TestGuardBoundsTheTime(t *testing.T) {
	if got := guarded(t, safehttp.GuardOptions{}).Timeout; got != 5*time.Second {
		t.Errorf("timeout %s", got)
	}
}

func TestGuardOptions(t *testing.T) {
	for _, test := range []struct{ origin, want string }{
		{"https://in.example", ""},
		{"https://in.example:8443", ""},
		{"http://localhost:3000", ""},
		{"http://[::1]:3000", ""},
		{"http://in.example", "write https"},
		{"http://localhost.evil.example", "write https"},
		{"https://in.example/", `write "https://in.example"`},
		{"https://in.example/path", `write "https://in.example"`},
		{"https://in.example?a=b", "more than an origin"},
		{"https://in.example#a", "more than an origin"},
		{"https://user:s3cret@in.example", "user name"},
		{"in.example", "not an origin"},
		{"https://", "not an origin"},
		{"https://in.example:0", "not an origin"},
		{"https://in.example:99999", "not an origin"},
		{"ftp://in.example", "not an origin"},
		{"", "not an origin"},
		{"%", "not an origin"},
	} {
		_, err := safehttp.NewGuardedClient(safehttp.GuardOptions{AllowOrigins: []string{test.origin}})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: error %v, want %q", test.origin, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error repeats the password: %v", test.origin, err)
		}
	}
}

// A client for any port and for POST keeps the other rules.
func TestGuardAnyPort(t *testing.T) {
	for _, test := range []struct {
		name, method, url string
		answers           []string
		dialled           []string
	}{
		{"another port", http.MethodGet, "https://example.com:8443/c", []string{"93.184.215.14"}, []string{"93.184.215.14:8443"}},
		{"POST", http.MethodPost, "https://example.com/c", []string{"93.184.215.14"}, []string{"93.184.215.14:443"}},
		{"another method", http.MethodPut, "https://example.com/c", []string{"93.184.215.14"}, nil},
		{"a private address on another port", http.MethodPost, "https://example.com:8443/c", []string{"10.0.0.1"}, nil},
		{"http on another port", http.MethodPost, "http://example.com:8080/c", []string{"93.184.215.14"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newInternet(t, nil)
			n.answers = func(string) []string { return test.answers }
			o := n.options()
			o.AnyPort, o.Methods = true, []string{http.MethodPost}
			req, err := http.NewRequestWithContext(t.Context(), test.method, test.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			_, err = safehttp.Do(guarded(t, o), req, 0)
			if (err == nil) != (test.dialled != nil) || err != nil && !errors.Is(err, safehttp.ErrRefused) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(test.dialled, n.dialled); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckHost(t *testing.T) {
	for _, test := range []struct {
		host    string
		allowed bool
	}{
		{"example.com", true},
		{"93.184.215.14", true},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", true},
		{"localhost", false},
		{"LOCALHOST.", false},
		{"127.0.0.1", false},
		{"10.0.0.1", false},
		{"169.254.169.254", false},
		{"::1", false},
		{"::ffff:93.184.215.14", false},
		{"fd00::1", false},
		{"2130706433", false},
		{"0x7f.1", false},
		{"", false},
	} {
		if err := safehttp.CheckHost(test.host); (err == nil) != test.allowed {
			t.Errorf("%q: %v", test.host, err)
		}
	}
}

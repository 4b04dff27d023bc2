package bearer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// object is a JSON object of a test.
type object = map[string]any

// with returns a copy of o with more members; nil takes a member away.
func with(o, more object) object {
	o = maps.Clone(o)
	for name, value := range more {
		if o[name] = value; value == nil {
			delete(o, name)
		}
	}
	return o
}

// signer is a key pair of an authorization server.
type signer struct {
	alg     string
	kid     string
	private crypto.Signer
}

func newRSA(kid string, bits int) *signer {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return &signer{"RS256", kid, key}
}

func newEC(kid string, curve elliptic.Curve) *signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return &signer{"ES256", kid, key}
}

func newEd25519(kid string) *signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &signer{"EdDSA", kid, key}
}

// rsaSigner is made once, because it takes long.
var rsaSigner = sync.OnceValue(func() *signer { return newRSA("rsa", 2048) })

// as is the same key that signs with another algorithm or under another id.
func (s *signer) as(alg, kid string) *signer { return &signer{alg, kid, s.private} }

// jwk is the public key as JWK, with more members.
func (s *signer) jwk(more object) object {
	key, err := jwkset.NewJWKFromKey(s.private.Public(), jwkset.JWKOptions{Validate: jwkset.JWKValidateOptions{SkipAll: true}})
	if err != nil {
		panic(err)
	}
	text, _ := json.Marshal(key.Marshal())
	var o object
	_ = json.Unmarshal(text, &o)
	return with(with(o, object{"kid": s.kid, "use": "sig", "alg": nil}), more)
}

// token signs a token; the header has alg, kid and typ at+jwt before more.
func (s *signer) token(header, payload object) string {
	h, err := json.Marshal(with(object{"alg": s.alg, "kid": s.kid, "typ": "at+jwt"}, header))
	if err != nil {
		panic(err)
	}
	p, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return s.sign(string(h), string(p))
}

// sign signs a header and a payload that may be anything.
func (s *signer) sign(header, payload string) string {
	text := segment(header) + "." + segment(payload)
	signature, err := jwt.GetSigningMethod(s.alg).Sign(text, s.private)
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func jwks(keys ...object) string {
	if keys == nil {
		keys = []object{}
	}
	text, err := json.Marshal(object{"keys": keys})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// issuer is an authorization server: a metadata document, a JWKS and an
// introspection endpoint, each replaceable and counted.
type issuer struct {
	*httptest.Server
	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests map[string]int
	stop     chan struct{}
}

const (
	metadataPath      = "/.well-known/oauth-authorization-server"
	openidPath        = "/.well-known/openid-configuration"
	jwksPath          = "/jwks"
	introspectionPath = "/introspect"
)

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{handlers: map[string]http.HandlerFunc{}, requests: map[string]int{}, stop: make(chan struct{})}
	i.Server = httptest.NewServer(i)
	t.Cleanup(func() {
		close(i.stop)
		i.Close()
	})
	i.answer(metadataPath, 200, i.metadata(nil))
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.requests[r.URL.Path]++
	handler := i.handlers[r.URL.Path]
	i.mu.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler(w, r)
}

func (i *issuer) handle(path string, h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers[path] = h
}

func (i *issuer) answer(path string, status int, body string) {
	i.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

// hang makes a path answer nothing until the test ends.
func (i *issuer) hang(path string) {
	i.handle(path, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-i.stop:
		case <-r.Context().Done():
		}
	})
}

func (i *issuer) count(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[path]
}

func (i *issuer) metadata(more object) string {
	text, err := json.Marshal(with(object{
		"issuer":                 i.URL,
		"jwks_uri":               i.URL + jwksPath,
		"introspection_endpoint": i.URL + introspectionPath,
	}, more))
	if err != nil {
		panic(err)
	}
	return string(text)
}

// claims are those of a good access token of the issuer.
func (i *issuer) claims(more object) object {
	now := time.Now().Unix()
	return with(object{
		"iss": i.URL, "sub": "alice", "aud": "https://mcp.example.com/mcp", "client_id": "client",
		"scope": "mcp:read mcp:write", "iat": now, "exp": now + 600, "jti": "1",
	}, more)
}

// client is a client whose connections are closed when the test ends.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// clock is a clock that tests set forward.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// logLines collects what is logged.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

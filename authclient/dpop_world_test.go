package authclient_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// proof is a DPoP proof after the checks of RFC 9449 §4.3.
type proof struct {
	jwt.RegisteredClaims
	Method     string `json:"htm"`
	URL        string `json:"htu"`
	TokenHash  string `json:"ath"`
	Nonce      string `json:"nonce"`
	thumbprint string
}

// readProof is a reader of its own: nothing of it comes from the package.
func readProof(r *http.Request, target, accessToken string) (*proof, error) {
	if len(r.Header.Values("DPoP")) != 1 {
		return nil, fmt.Errorf("%d DPoP headers", len(r.Header.Values("DPoP")))
	}
	p := &proof{}
	token, err := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"})).ParseWithClaims(r.Header.Get("DPoP"), p, func(token *jwt.Token) (key any, err error) {
		if token.Header["typ"] != "dpop+jwt" || token.Header["kid"] != nil {
			return nil, fmt.Errorf("header %v", token.Header)
		}
		key, p.thumbprint, err = readJWK(token.Header["jwk"])
		return key, err
	})
	if err != nil || !token.Valid {
		return nil, err
	}
	hash := ""
	if accessToken != "" {
		sum := sha256.Sum256([]byte(accessToken))
		hash = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	switch {
	case p.Method != r.Method:
		return nil, fmt.Errorf("htm is %q", p.Method)
	case p.URL != target:
		return nil, fmt.Errorf("htu is %q, want %q", p.URL, target)
	case p.TokenHash != hash:
		return nil, errors.New("ath is wrong")
	case p.ID == "" || p.IssuedAt == nil:
		return nil, errors.New("jti or iat is missing")
	}
	return p, nil
}

func readJWK(v any) (key *ecdsa.PublicKey, thumbprint string, err error) {
	jwk, _ := v.(map[string]any)
	if len(jwk) != 4 || jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
		return nil, "", fmt.Errorf("jwk %v", v)
	}
	x, errX := base64.RawURLEncoding.DecodeString(fmt.Sprint(jwk["x"]))
	y, errY := base64.RawURLEncoding.DecodeString(fmt.Sprint(jwk["y"]))
	if err := errors.Join(errX, errY); err != nil || len(x) != 32 || len(y) != 32 {
		return nil, "", errors.New("x or y")
	}
	canonical, err := json.Marshal(jwk) // of sorted members, as RFC 7638 §3 has it
	if err != nil {
		return nil, "", err
	}
	sum := crypto.SHA256.New()
	sum.Write(canonical)
	key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	return key, base64.RawURLEncoding.EncodeToString(sum.Sum(nil)), err
}

// dpopServer is a scripted server that binds its tokens and checks proofs.
type dpopServer struct {
	*scripted
	// TokenType of the tokens; "DPoP" unless a test says another.
	TokenType string

	mu sync.Mutex
	// tokenNonce and resourceNonce are the nonces that are wanted; "" for none.
	tokenNonce, resourceNonce string
	// rotate makes each answer give a new nonce, which the next request needs.
	rotate bool
	jtis   map[string]bool
	jkt    string
	served int
	errs   []error
}

func newDPoPServer(t *testing.T) *dpopServer {
	t.Helper()
	s := &dpopServer{scripted: newScripted(t), TokenType: "DPoP", jtis: make(map[string]bool)}
	s.set("dpop_signing_alg_values_supported", []string{"ES256"})
	issue := s.token
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) { s.proven(w, r, issue) })
	s.handle("/mcp", s.resource)
	t.Cleanup(func() {
		for _, err := range s.errs {
			t.Error("a proof is wrong:", err)
		}
	})
	return s
}

// check reads a proof, each of which may come once.
func (s *dpopServer) check(r *http.Request, accessToken string) *proof {
	p, err := readProof(r, s.URL+r.URL.EscapedPath(), accessToken)
	if err == nil && s.jtis[p.ID] {
		err = errors.New("the jti comes twice")
	}
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err))
		return nil
	}
	s.jtis[p.ID] = true
	return p
}

func (s *dpopServer) wants(nonce *string, p *proof, w http.ResponseWriter) bool {
	wanted := *nonce
	if s.rotate && wanted != "" {
		*nonce = fmt.Sprintf("nonce-%d", len(s.jtis))
	}
	if *nonce != "" {
		w.Header().Set("DPoP-Nonce", *nonce)
	}
	return wanted != "" && p.Nonce != wanted
}

func (s *dpopServer) proven(w http.ResponseWriter, r *http.Request, issue http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.check(r, "")
	if p == nil {
		sendJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_dpop_proof"})
		return
	}
	if s.wants(&s.tokenNonce, p, w) {
		sendJSON(w, http.StatusBadRequest, map[string]any{"error": "use_dpop_nonce"})
		return
	}
	s.jkt = p.thumbprint
	var inner answerBuffer
	issue(&inner, r)
	inner.body["token_type"] = s.TokenType
	sendJSON(w, inner.status, inner.body)
}

func (s *dpopServer) resource(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	s.scripted.mu.Lock()
	valid := s.valid[token]
	s.scripted.mu.Unlock()
	if scheme != s.TokenType || !valid {
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if s.TokenType != "DPoP" {
		s.served++
		return
	}
	p := s.check(r, token)
	if p == nil || p.thumbprint != s.jkt {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if s.wants(&s.resourceNonce, p, w) {
		w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.served++
}

// answerBuffer keeps a JSON answer.
type answerBuffer struct {
	header http.Header
	status int
	body   map[string]any
}

func (b *answerBuffer) Header() http.Header {
	if b.header == nil {
		b.header = http.Header{}
	}
	return b.header
}
func (b *answerBuffer) WriteHeader(status int) { b.status = status }
func (b *answerBuffer) Write(data []byte) (int, error) {
	return len(data), json.Unmarshal(data, &b.body)
}

// boundUser is a user of whom the server asks nothing, with a key.
type boundUser struct {
	*authclient.Web
	*authclient.DPoP
	callback chan url.Values
}

func (u *boundUser) WaitForCallback(context.Context) (url.Values, error) { return <-u.callback, nil }

func newBoundUser(t *testing.T, o authclient.DPoPOptions) (*boundUser, *authclient.MemoryStore) {
	t.Helper()
	u := &boundUser{callback: make(chan url.Values, 1)}
	var store *authclient.MemoryStore
	u.Web, store = web(t, func(o *authclient.WebOptions) {
		o.Redirect = func(_ context.Context, to *url.URL) error {
			u.callback <- browse(t, to)
			return nil
		}
	})
	var err error
	if u.DPoP, err = authclient.NewDPoP(o); err != nil {
		t.Fatal(err)
	}
	return u, store
}

// client is an HTTP client over WithOAuth.
func (s *scripted) client(t *testing.T, p authclient.Provider) *http.Client {
	t.Helper()
	next := &http.Transport{}
	transport, err := authclient.WithOAuth(p, s.mcpURL(), authclient.TransportOptions{Next: next})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// proved sends a request and returns its status.
func proved(t *testing.T, client *http.Client, to string) (int, error) {
	t.Helper()
	resp, err := client.Post(to, "application/json", strings.NewReader(`{"jsonrpc":"2.0"}`))
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

package bearer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	assertionAlgorithm = "ES256"
	// assertionJWKSAge is how long others may keep the JWKS. A key is in it for a
	// whole period before it signs.
	assertionJWKSAge     = 10 * time.Minute
	defaultAssertionTime = 30 * 24 * time.Hour
)

// AssertionKeysConfig configures AssertionKeys. Secrets is required.
type AssertionKeysConfig struct {
	// Secrets returns the secrets that the keys are derived from, at least one.
	// Keys of all of them are published, and the last one signs: a new secret is
	// put in front, and signs when the older ones are taken away, by which time
	// everybody knows its keys. It is called on first use, until it succeeds once.
	Secrets func() ([][32]byte, error)
	// Period is how long a key signs: 30 days if 0, 1 h at least.
	Period time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// AssertionKeys are the keys that sign Assertions, ES256. They are derived from
// secrets and the time, so that any number of nodes with the same secrets has
// the same keys and nothing has to be stored. Each signs for one period; those of
// the period before and the one after are published beside it. They sign nothing
// else: no access token is ever good because of them. Safe for concurrent use.
type AssertionKeys struct {
	config AssertionKeysConfig

	set atomic.Pointer[assertionKeySet]
	mu  sync.Mutex // held to derive keys
}

// assertionKey is one of them.
type assertionKey struct {
	id      string // kid
	private *ecdsa.PrivateKey
}

// assertionKeySet is the keys of one period.
type assertionKeySet struct {
	period  int64
	signing *assertionKey
	jwks    []byte
	etag    string
}

// NewAssertionKeys checks the configuration. It derives nothing yet.
func NewAssertionKeys(c AssertionKeysConfig) (*AssertionKeys, error) {
	if c.Secrets == nil {
		return nil, errors.New("assertion keys need secrets to derive them from")
	}
	c.Period = durationOr(c.Period, defaultAssertionTime)
	if c.Period < time.Hour {
		return nil, errors.New("assertion keys must sign for at least an hour")
	}
	c.Now = clockOr(c.Now)
	return &AssertionKeys{config: c}, nil
}

// current returns the keys of this period.
func (k *AssertionKeys) current() (*assertionKeySet, error) {
	period := k.config.Now().Unix() / int64(k.config.Period/time.Second)
	if set := k.set.Load(); set != nil && set.period == period {
		return set, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if set := k.set.Load(); set != nil && set.period == period {
		return set, nil
	}
	secrets, err := k.config.Secrets()
	if err != nil {
		return nil, oauth.ErrTemporarilyUnavailable.Describe("The server cannot open its keys, try again").Because(err)
	}
	set, err := newAssertionKeySet(secrets, period)
	if err != nil {
		return nil, err
	}
	k.set.Store(set)
	return set, nil
}

func newAssertionKeySet(secrets [][32]byte, period int64) (*assertionKeySet, error) {
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret to derive assertion keys from")
	}
	set := &assertionKeySet{period: period}
	var published []assertionJWK
	for _, secret := range secrets {
		for p := period - 1; p <= period+1; p++ {
			key, jwk, err := deriveAssertionKey(secret, p)
			if err != nil {
				return nil, err
			}
			published = append(published, jwk)
			if p == period {
				set.signing = key
			}
		}
	}
	var err error
	if set.jwks, err = json.Marshal(map[string]any{"keys": published}); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(set.jwks)
	set.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return set, nil
}

// assertionJWK is a public key (RFC 7518 §6.2.1).
type assertionJWK struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

// deriveAssertionKey derives the key of a period. A number that is no key of
// P-256, one in 2³², is passed over.
func deriveAssertionKey(secret [32]byte, period int64) (*assertionKey, assertionJWK, error) {
	for try := range 4 {
		d, err := hkdf.Key(sha256.New, secret[:], nil, fmt.Sprintf("mcpauth assertion key v1 %s %d %d", assertionAlgorithm, period, try), 32)
		if err != nil {
			return nil, assertionJWK{}, err
		}
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
		if err != nil {
			continue
		}
		point, err := private.PublicKey.Bytes() // 4 ‖ X ‖ Y
		if err != nil {
			return nil, assertionJWK{}, err
		}
		sum := sha256.Sum256(point)
		enc := base64.RawURLEncoding.EncodeToString
		key := &assertionKey{id: enc(sum[:9]), private: private}
		return key, assertionJWK{
			KeyType: "EC", Use: "sig", Algorithm: assertionAlgorithm, ID: key.id, Curve: "P-256", X: enc(point[1:33]), Y: enc(point[33:]),
		}, nil
	}
	return nil, assertionJWK{}, errors.New("no assertion key could be derived")
}

// sign returns the compact JWS (RFC 7515 §7.1) of the payload.
func (k *assertionKey) sign(payload []byte) (string, error) {
	enc := base64.RawURLEncoding
	b := enc.AppendEncode(nil, fmt.Appendf(nil, `{"alg":"%s","kid":"%s","typ":"%s"}`, assertionAlgorithm, k.id, AssertionType))
	b = enc.AppendEncode(append(b, '.'), payload)
	signature, err := jwt.SigningMethodES256.Sign(string(b), k.private)
	if err != nil {
		return "", fmt.Errorf("signing an assertion: %w", err)
	}
	return string(enc.AppendEncode(append(b, '.'), signature)), nil
}

// ServeHTTP serves the public keys as a JWK Set (RFC 7517 §5), to any origin.
func (k *AssertionKeys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		reflectRequestedHeaders(h, r)
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		writeError(w, r, oauth.ErrMethodNotAllowed.Describe("The method "+r.Method+" is not allowed for this endpoint"))
		return
	}
	set, err := k.current()
	if err != nil {
		writeError(w, r, oauth.AsError(err))
		return
	}
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(assertionJWKSAge/time.Second)))
	h.Set("ETag", set.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("If-None-Match") == set.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, r, http.StatusOK, set.jwks)
}

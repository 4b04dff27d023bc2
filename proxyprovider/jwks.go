package proxyprovider

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// jwk is a public key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
type jwk struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// marshalJWKS returns the JWK Set of the keys and its entity tag.
func marshalJWKS(keys []*signingKey) (document []byte, etag string, err error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, 0, len(keys))}
	enc := base64.RawURLEncoding.EncodeToString
	for _, k := range keys {
		j := jwk{Use: "sig", Algorithm: k.alg, ID: k.id}
		switch public := k.public.(type) {
		case *ecdsa.PublicKey:
			point, err := public.Bytes() // 4 ‖ X ‖ Y
			if err != nil {
				return nil, "", err
			}
			half := (len(point) - 1) / 2
			j.KeyType, j.Curve, j.X, j.Y = "EC", "P-256", enc(point[1:1+half]), enc(point[1+half:])
		case ed25519.PublicKey:
			j.KeyType, j.Curve, j.X = "OKP", "Ed25519", enc(public)
		case *rsa.PublicKey:
			j.KeyType, j.N, j.E = "RSA", enc(public.N.Bytes()), enc(big.NewInt(int64(public.E)).Bytes())
		default:
			return nil, "", fmt.Errorf("a signing key of type %T", k.public)
		}
		set.Keys = append(set.Keys, j)
	}
	document, err = json.Marshal(set)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(document)
	return append(document, '\n'), `"` + enc(sum[:12]) + `"`, nil
}

// JWKS returns the handler of the jwks_uri: the public keys of all access tokens
// that may be good, and of those that will come. Others may keep it for ten
// minutes, and no new key is used before that.
func (g *Grants) JWKS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodOptions:
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			writeGrantError(w, oauth.ErrMethodNotAllowed.Describe("Use GET"))
			return
		}
		set, err := g.keys.current(r.Context())
		if err != nil {
			g.cfg.Logger.Error("the signing keys cannot be served", "error", err)
			writeGrantError(w, oauth.AsError(err))
			return
		}
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(jwksMaxAge/time.Second)))
		h.Set("ETag", set.etag)
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Header.Get("If-None-Match") == set.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "application/jwk-set+json")
		h.Set("Content-Length", strconv.Itoa(len(set.jwks)))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			_, _ = w.Write(set.jwks)
		}
	})
}

// writeGrantError writes an error of the two handlers of Grants.
func writeGrantError(w http.ResponseWriter, e *oauth.Error) {
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte(`{"error":"server_error"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.HTTPStatus() == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(e.HTTPStatus())
	_, _ = w.Write(append(body, '\n'))
}

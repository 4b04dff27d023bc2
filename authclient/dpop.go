package authclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// tokenTypeDPoP is the token_type of a bound token, and the scheme of its
// Authorization header (RFC 9449 §5, §7.1).
const tokenTypeDPoP = "DPoP"

// ErrNotBound: a token is not bound to the key although it has to be.
var ErrNotBound = errors.New("token is not bound to the key")

// DPoPOptions are the options of NewDPoP.
type DPoPOptions struct {
	// Key is an ECDSA key on P-256. Default: a new one, which lives as long as
	// the program. Refresh tokens of public clients are bound to the key too, so
	// that who keeps tokens has to keep it: see OpenSigningKey.
	Key SigningKey
	// AllowBearer accepts tokens that the server did not bind to the key. By
	// default they are refused (ErrNotBound), for an attacker between client and
	// server would take the proof away first.
	AllowBearer bool
	// Now replaces the clock.
	Now func() time.Time
}

// DPoP proves possession of a key with every request (RFC 9449, extension
// auth/dpop, SEP-1932). Embed it in a provider beside a ready one:
//
//	type boundProvider struct {
//		*authclient.Loopback
//		*authclient.DPoP
//	}
//
// It sends bound tokens with the scheme DPoP, makes a new proof for each
// request, for its method and URL only, and answers use_dpop_nonce once.
type DPoP struct {
	key         SigningKey
	jwk         map[string]any
	thumbprint  string
	allowBearer bool
	now         func() time.Time
	nonces      nonces
}

var (
	_ Prover     = (*DPoP)(nil)
	_ CodeBinder = (*DPoP)(nil)
)

// NewDPoP checks the options, and makes a key if there is none.
func NewDPoP(o DPoPOptions) (*DPoP, error) {
	if o.Key.Signer == nil {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		o.Key.Signer = private
	}
	if err := o.Key.check(); err != nil {
		return nil, fmt.Errorf("DPoP: %w", err)
	}
	public, ok := o.Key.Signer.Public().(*ecdsa.PublicKey)
	if !ok || o.Key.Algorithm != algES256 {
		return nil, errors.New("DPoP: the key is not an ECDSA key on P-256, which every server takes: make one with OpenSigningKey")
	}
	o.Key.ID = "" // the key itself stands in the header
	jwk, thumbprint, err := ecJWK(public)
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &DPoP{key: o.Key, jwk: jwk, thumbprint: thumbprint, allowBearer: o.AllowBearer, now: o.Now}, nil
}

// Thumbprint is the JWK thumbprint of the key (RFC 7638), as in the cnf claim of
// bound tokens.
func (d *DPoP) Thumbprint() string { return d.thumbprint }

// supports reports whether the authorization server takes proofs with this key;
// said is false if its metadata do not say.
func supports(metadata *oauth.Metadata) (yes, said bool) {
	if metadata == nil {
		return false, false
	}
	raw, ok := metadata.Extra["dpop_signing_alg_values_supported"]
	if !ok {
		return false, false
	}
	var algorithms []string
	if strictjson.Unmarshal(raw, &algorithms) != nil {
		return false, true
	}
	return slices.Contains(algorithms, algES256), true
}

// CodeKey implements CodeBinder for servers that know DPoP.
func (d *DPoP) CodeKey(metadata *oauth.Metadata) string {
	if yes, _ := supports(metadata); yes {
		return d.thumbprint
	}
	return ""
}

// ProveTokenRequest implements Prover (RFC 9449 §5).
func (d *DPoP) ProveTokenRequest(_ context.Context, r *http.Request, metadata *oauth.Metadata) error {
	if yes, said := supports(metadata); said && !yes {
		if d.allowBearer {
			return nil
		}
		return fmt.Errorf("%w: %s does not take DPoP proofs with ES256, so its tokens would not be bound: ask its operator, or set AllowBearer", ErrIncompatible, metadata.Issuer)
	}
	return d.prove(r, "")
}

// ProveResourceRequest implements Prover (RFC 9449 §7.1).
func (d *DPoP) ProveResourceRequest(_ context.Context, r *http.Request, tokens *Tokens) error {
	if err := d.accept(tokens); err != nil || !isBound(tokens) {
		return err
	}
	r.Header.Set("Authorization", tokenTypeDPoP+" "+tokens.AccessToken)
	return d.prove(r, tokens.AccessToken)
}

// AcceptTokens implements Prover: it refuses a token that the server did not
// bind, unless that is allowed.
func (d *DPoP) AcceptTokens(_ context.Context, tokens *Tokens) error { return d.accept(tokens) }

func (d *DPoP) accept(tokens *Tokens) error {
	if isBound(tokens) || d.allowBearer {
		return nil
	}
	return fmt.Errorf("%w: its token_type is %.20q and not DPoP (RFC 9449 section 5); ask the operator of %s to bind tokens, or set AllowBearer", ErrNotBound, tokens.TokenType, tokens.Issuer)
}

func isBound(tokens *Tokens) bool { return strings.EqualFold(tokens.TokenType, tokenTypeDPoP) }

// ProofAnswered implements Prover (RFC 9449 §8, §9).
func (d *DPoP) ProofAnswered(_ context.Context, a ProofAnswer) (again bool) {
	nonce := a.Header.Get("DPoP-Nonce")
	if len(a.Header.Values("DPoP-Nonce")) != 1 || !isNonce(nonce) {
		return false
	}
	d.nonces.learn(originOf(a.URL), nonce)
	return a.Code == "use_dpop_nonce" && (a.Status == http.StatusBadRequest || a.Status == http.StatusUnauthorized)
}

// prove adds a proof for the request (RFC 9449 §4.2), with the hash of the
// access token unless that is "".
func (d *DPoP) prove(r *http.Request, accessToken string) error {
	claims := map[string]any{
		"jti": newJTI(),
		"htm": r.Method,
		"htu": proofURL(r.URL),
		"iat": d.now().Unix(),
	}
	if accessToken != "" {
		hash := sha256.Sum256([]byte(accessToken))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(hash[:])
	}
	if nonce := d.nonces.get(originOf(r.URL)); nonce != "" {
		claims["nonce"] = nonce
	}
	proof, err := d.key.sign(map[string]any{"typ": "dpop+jwt", "jwk": d.jwk}, claims)
	if err != nil {
		return fmt.Errorf("the DPoP proof could not be signed: %w", err)
	}
	r.Header.Set("DPoP", proof)
	return nil
}

// proofURL is the htu claim: without query and fragment, the origin in its
// canonical form.
func proofURL(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return originOf(u) + path
}

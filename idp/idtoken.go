package idp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	maxIDToken = 64 << 10 // bytes
	// clockSkew is how far the provider's clock may be from ours.
	clockSkew = time.Minute
)

// algorithms are those an id_token may be signed with. None is symmetric: a
// public key must not be talked into serving as a secret, nor the client secret
// into vouching for users.
var algorithms = [...]string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// verifyIDToken checks an id_token in the order of OpenID Connect Core
// §3.1.3.7 and returns its claims. nonce is "" at refresh, where a token may
// have none (§12.2). It does not check the subject against an earlier one.
func (u *oidcUpstream) verifyIDToken(ctx context.Context, raw, accessToken, nonce string) (claims, error) {
	if len(raw) > maxIDToken {
		return nil, trouble(nil, "its id_token is too large")
	}
	m, err := u.metadata(ctx)
	if err != nil {
		return nil, err
	}
	c, err := u.checkIDToken(ctx, m, raw, accessToken, nonce)
	if err != nil {
		return nil, trouble(err, "its id_token cannot be accepted")
	}
	return c, nil
}

func (u *oidcUpstream) checkIDToken(ctx context.Context, m *metadata, raw, accessToken, nonce string) (claims, error) {
	// 6., 8.: the signature, although TLS vouches for the token already; with an
	// algorithm that the provider announces. 3.: the audience.
	payload := &payloadKeeper{KeySet: u.keys}
	token, err := oidc.NewVerifier(m.issuer, payload, &oidc.Config{
		ClientID:             u.ClientID,
		SupportedSigningAlgs: m.acceptableAlgs(),
		SkipIssuerCheck:      true, // below, for issuers that depend on the tenant
		SkipExpiryCheck:      true, // below, with leeway
	}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	var c claims
	if err := unmarshal(payload.payload, &c); err != nil {
		return nil, err
	}
	// 2.: the issuer, exactly.
	issuer, err := u.expectedIssuer(m, c)
	if err != nil {
		return nil, err
	}
	if c.str("iss") != issuer || token.Issuer != issuer {
		return nil, fmt.Errorf("it is from issuer %.200q, not %q", token.Issuer, issuer)
	}
	// 4., 5.: a token for several audiences says who asked for it.
	switch azp := c.str("azp"); {
	case azp != "" && azp != u.ClientID:
		return nil, errors.New("azp names another client")
	case azp == "" && (len(token.Audience) > 1 || c["azp"] != nil):
		return nil, errors.New("it has several audiences and no azp")
	}
	// 9., 10.
	now := u.Now()
	nbf, err := c.time("nbf")
	switch {
	case err != nil:
		return nil, err
	case token.Expiry.Unix() <= 0:
		return nil, errors.New("it has no exp")
	case !now.Add(-clockSkew).Before(token.Expiry):
		return nil, fmt.Errorf("it expired %s ago", now.Sub(token.Expiry).Round(time.Second))
	case token.IssuedAt.Unix() <= 0:
		return nil, errors.New("it has no iat")
	case token.IssuedAt.After(now.Add(clockSkew)) || nbf.After(now.Add(clockSkew)):
		return nil, errors.New("it is of the future: compare the clocks")
	}
	// 11.: it is the answer to our request. At refresh we have none to compare.
	if nonce != "" && !same(c.str("nonce"), nonce) {
		return nil, errors.New("its nonce is not that of the request")
	}
	// §3.1.3.8: it belongs to the access token beside it.
	if _, there := c["at_hash"]; there && token.VerifyAccessToken(accessToken) != nil {
		return nil, errors.New("its at_hash is not that of the access token")
	}
	if err := checkSubject(c.str("sub")); err != nil {
		return nil, err
	}
	if c.str("sub") != token.Subject {
		return nil, errors.New("it names its subject in two ways")
	}
	return c, nil
}

// payloadKeeper keeps the payload that was verified, for our own reading of it.
type payloadKeeper struct {
	oidc.KeySet
	payload []byte
	err     error // which oidc.IDTokenVerifier does not wrap
}

func (k *payloadKeeper) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	k.payload, k.err = payload, err
	return payload, err
}

// acceptableAlgs are the announced algorithms that we accept. RS256 is
// mandatory for providers, so it is expected of one that announces none.
func (m *metadata) acceptableAlgs() []string {
	var algs []string
	for _, alg := range m.signingAlgs {
		if slices.Contains(algorithms[:], alg) {
			algs = append(algs, alg)
		}
	}
	if len(algs) == 0 {
		return []string{oidc.RS256}
	}
	return algs
}

// time is a NumericDate claim, zero if it is absent.
func (c claims) time(name string) (time.Time, error) {
	v, ok := c[name]
	if !ok {
		return time.Time{}, nil
	}
	n, ok := v.(interface{ Float64() (float64, error) })
	if ok {
		if seconds, err := n.Float64(); err == nil && seconds > 0 && seconds < 1<<40 {
			return time.Unix(int64(seconds), 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("its %s is no time", strings.ToLower(name))
}

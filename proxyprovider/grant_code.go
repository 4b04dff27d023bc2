package proxyprovider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

// codeTTL is the life of an authorization code (RFC 6749 §4.1.2: short).
const codeTTL = time.Minute

// NewGrant is what a user allowed a client.
type NewGrant struct {
	// ID is derived from the transaction of the login, which therefore makes one
	// grant at most.
	ID [16]byte
	// Client is the client as it is now. Its id, name, authentication method and
	// grant types are kept: what it may do with this grant does not change when
	// its metadata does.
	Client *oauth.Client
	// ClientMetadataHash is of the client's metadata, at most 32 bytes; optional.
	ClientMetadataHash []byte
	// RedirectURI, RedirectURIOmitted and CodeChallenge are those of
	// authserver.AuthorizationParams.
	RedirectURI        string
	RedirectURIOmitted bool
	CodeChallenge      string
	// Scopes are the granted ones.
	Scopes []string
	// Resource is the canonical identifier of the resource; required.
	Resource string
	// Identity is who signed in; required.
	Identity *idp.Identity
	// Upstream are the upstream's tokens, nil if there are none.
	Upstream *idp.Tokens
}

// Create stores a grant and returns its authorization code, good for 60 s. It
// returns ErrGrantExists if the id was used before, and changes nothing then.
// That the user may have access was checked by the caller.
func (g *Grants) Create(ctx context.Context, n NewGrant) (code string, err error) {
	now := g.cfg.Now()
	id := grantID(n.ID)
	r, err := n.record(now)
	if err != nil {
		return "", err
	}
	var secret [32]byte
	if err := g.random(secret[:]); err != nil {
		return "", err
	}
	code = id.String() + "." + base64.RawURLEncoding.EncodeToString(secret[:])
	r.code.hash = sha256.Sum256([]byte(code))
	value, err := r.encode()
	if err != nil {
		return "", err
	}
	if _, err := decodeGrant(value); err != nil {
		return "", oauth.ErrServerError.Describe("What is known of the client or the user is too large").Because(err)
	}
	backend, err := g.open()
	if err != nil {
		return "", err
	}
	switch _, err := backend.store.Get(ctx, id.key()); {
	case err == nil:
		return "", ErrGrantExists
	case !errors.Is(err, store.ErrNotFound):
		return "", storeTrouble(err)
	}
	// First the index: a grant that its user cannot find must not exist, while an
	// entry without a grant is repaired.
	if err := g.addToIndex(ctx, id, r, now); err != nil {
		return "", err
	}
	err = backend.store.Update(ctx, id.key(), func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			return nil, 0, ErrGrantExists
		}
		return value, codeTTL, nil
	})
	switch {
	case errors.Is(err, ErrGrantExists):
		return "", ErrGrantExists
	case err != nil:
		return "", storeTrouble(err)
	}
	return code, nil
}

// record checks n and returns its record, the hash of the code missing.
func (n *NewGrant) record(now time.Time) (*grantRecord, error) {
	switch {
	case n.Client == nil || n.Client.ClientID == "":
		return nil, errors.New("a grant needs a client")
	case n.Identity == nil || n.Identity.Subject == "":
		return nil, errors.New("a grant needs a user")
	case n.RedirectURI == "" || n.Resource == "":
		return nil, errors.New("a grant needs a redirect URI and a resource")
	case len(n.ClientMetadataHash) > sha256.Size:
		return nil, errors.New("the hash of the client's metadata is too long")
	}
	for _, scope := range n.Scopes {
		if !oauth.ValidScope(scope) {
			return nil, fmt.Errorf("%.40q is no scope", scope)
		}
	}
	r := &grantRecord{
		created: stampOf(now), lastUsed: stampOf(now), provenAt: stampOf(now),
		clientID: n.Client.ClientID, clientName: n.Client.ClientName, metadataHash: n.ClientMetadataHash,
		authStrength:    authStrength(n.Client),
		refreshable:     n.Client.AllowsGrant(oauth.GrantTypeRefreshToken),
		redirectURI:     n.RedirectURI,
		redirectOmitted: n.RedirectURIOmitted,
		resource:        n.Resource, scopes: oauth.JoinScope(n.Scopes),
		identity: *n.Identity,
		code:     &codeState{expires: stampOf(now.Add(codeTTL))},
	}
	if !decodeExactly(r.code.challenge[:], n.CodeChallenge) {
		return nil, oauth.ErrInvalidRequest.Describe("code_challenge must be the base64url form of a SHA-256 hash (S256)")
	}
	if n.Upstream != nil {
		r.upstream = *n.Upstream
		if !r.upstream.Expiry.IsZero() {
			r.upstream.Expiry = stampOf(r.upstream.Expiry).time()
		}
	}
	return r, nil
}

// authStrength ranks how a client proves who it is. A grant is good for nobody
// who proves less than the one who got it: a metadata document that says
// private_key_jwt at the login and none later must not open it.
func authStrength(c *oauth.Client) byte {
	switch c.TokenEndpointAuthMethod {
	case oauth.AuthMethodNone:
		return 0
	case oauth.AuthMethodPrivateKeyJWT:
		return 2
	case "":
		if c.ClientSecret == "" {
			return 0
		}
	}
	return 1
}

// belongsTo checks that the client is the one that the grant was made for.
func (r *grantRecord) belongsTo(c *oauth.Client) error {
	if c == nil || c.ClientID != r.clientID {
		return deadGrant("The grant was issued to another client", nil)
	}
	if authStrength(c) < r.authStrength {
		return deadGrant("The client authenticates in a weaker way than when the user signed in; sign in again", nil)
	}
	return nil
}

const unknownCode = "The authorization code is not valid: it is unknown, expired, used or revoked"

// loadCode returns the grant of a code that is genuine, not expired and this
// client's. It may have been used.
func (g *Grants) loadCode(ctx context.Context, c *oauth.Client, code string) (*grantSnapshot, error) {
	name, _, _ := strings.Cut(code, ".")
	id, ok := parseGrantID(name)
	if !ok {
		return nil, deadGrant(unknownCode, nil)
	}
	s, err := g.load(ctx, id)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(code))
	switch {
	case s == nil || s.code == nil:
		return nil, deadGrant(unknownCode, nil)
	case subtle.ConstantTimeCompare(hash[:], s.code.hash[:]) != 1:
		return nil, deadGrant(unknownCode, nil)
	case !g.cfg.Now().Before(s.code.expires.time()):
		return nil, deadGrant("The authorization code has expired, it is good for 60 seconds; sign in again", nil)
	}
	if err := s.belongsTo(c); err != nil {
		return nil, err
	}
	return s, nil
}

// ChallengeForCode implements authserver.Provider. It changes nothing; that the
// verifier fits is checked again when the code is redeemed.
func (g *Grants) ChallengeForCode(ctx context.Context, c *oauth.Client, code string) (string, error) {
	s, err := g.loadCode(ctx, c, code)
	if err != nil {
		return "", err
	}
	return s.codeChallenge(), nil
}

func (r *grantRecord) codeChallenge() string {
	return base64.RawURLEncoding.EncodeToString(r.code.challenge[:])
}

// ExchangeCode implements authserver.Provider. Redemption is one compare-and-swap
// from unused to used. A request that fails a check changes nothing; a second
// one that passes every check revokes the grant, since then two parties hold the
// code and its verifier (RFC 6749 §4.1.2). So nobody who merely saw a code can
// end a session.
func (g *Grants) ExchangeCode(ctx context.Context, c *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
	for range swapTries {
		s, err := g.loadCode(ctx, c, x.Code)
		if err != nil {
			return nil, err
		}
		if err := s.checkRedemption(x); err != nil {
			return nil, err
		}
		if s.code.used {
			if err := g.bury(ctx, s.id, nil); err != nil {
				return nil, err
			}
			g.cfg.Logger.Warn("an authorization code was redeemed twice, its grant is revoked", "client", hashID(c.ClientID), "grant", hashID(s.id.String()))
			return nil, deadGrant(unknownCode, errors.New("it was redeemed twice, with the right verifier"))
		}
		tokens, err := g.redeem(ctx, s)
		if !errors.Is(err, errChanged) {
			return tokens, err
		}
	}
	return nil, storeTrouble(store.ErrConflict)
}

// checkRedemption holds the request to what the code was issued for.
func (r *grantRecord) checkRedemption(x authserver.CodeExchange) error {
	// RFC 6749 §4.1.3: needed if the authorization request had one, and equal.
	if x.RedirectURI != r.redirectURI && (x.RedirectURI != "" || !r.redirectOmitted) {
		return deadGrant("redirect_uri does not match the authorization request", nil)
	}
	if !oauth.VerifyS256(x.Verifier, r.codeChallenge()) { // RFC 7636 §4.6
		return deadGrant("code_verifier does not match the challenge", nil)
	}
	return r.checkResource(x.Resource)
}

// checkResource is RFC 8707 §2.2: the token is for the resource of the grant.
func (r *grantRecord) checkResource(resource string) error {
	if resource != "" && resource != r.resource {
		return oauth.ErrInvalidTarget.Describe("resource does not match the one that access was granted to")
	}
	return nil
}

// redeem marks the code as used and makes the first tokens.
func (g *Grants) redeem(ctx context.Context, s *grantSnapshot) (*oauth.Tokens, error) {
	now := g.cfg.Now()
	next, err := s.edit()
	if err != nil {
		return nil, err
	}
	next.code.used = true
	a, err := g.issue(ctx, next, next.scopes, now)
	if err != nil {
		return nil, err
	}
	if err := g.swap(ctx, s, next.grantRecord, now); err != nil {
		return nil, err
	}
	return a.tokens(), nil
}

// issue makes the tokens of the next generation and writes down in the record
// what is kept of them.
func (g *Grants) issue(ctx context.Context, s *grantSnapshot, scope string, now time.Time) (*grantAnswer, error) {
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	s.generation++
	access, err := g.signAccessToken(ctx, s.id, s.grantRecord, s.generation, scope, now)
	if err != nil {
		return nil, err
	}
	a := &grantAnswer{access: access, scope: scope, expiresIn: access.expires.Sub(time.Unix(now.Unix(), 0))}
	s.accessUntil = max(s.accessUntil, stampOf(access.expires))
	s.lastUsed = stampOf(now)
	s.rotations = slices.Insert(s.rotations, 0, stampOf(now))
	s.pruneRotations(g.cfg.Grace, stampOf(now))
	if !s.refreshable {
		return a, nil
	}
	a.refresh = &refreshToken{grant: s.id, generation: s.generation}
	if err := g.random(a.refresh.secret[:]); err != nil {
		return nil, err
	}
	mac := backend.mac.MAC(a.refresh.signed(s.clientID)...)
	copy(a.refresh.mac[:], mac[:])
	s.refreshHash = sha256.Sum256([]byte(a.refresh.String()))
	return a, nil
}

package proxyprovider

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

const (
	signingKeysKey    = "keys/signing"
	signingKeysFormat = 1
	maxSigningKeys    = 16

	// jwksMaxAge is how long others may keep our JWKS.
	jwksMaxAge = 10 * time.Minute
	// keysFresh is the age at which a node that uses the keys reads them again. A
	// key that was dropped in an emergency is good no longer than that elsewhere.
	keysFresh = 5 * time.Second
	// keysUnknown is the least time between two reads for tokens of unknown keys.
	keysUnknown = time.Second
	// publishLead is how long a new key is published before its first use: longer
	// than anyone keeps a JWKS without it (SECURITY §5).
	publishLead = jwksMaxAge + 2*time.Minute
	// keyOverlap is how long a key is kept after its successor came into use,
	// besides the life of an access token. It covers a shortened access_ttl.
	keyOverlap = 24 * time.Hour
)

// signingKey is a key for access tokens.
type signingKey struct {
	id      string // kid
	alg     string
	created stamp
	// active is when the key may first sign.
	active  stamp
	method  jwt.SigningMethod
	private crypto.Signer
	public  crypto.PublicKey
	der     []byte // private, PKCS #8
}

// signingMethod returns the method of a JOSE algorithm that we sign with.
func signingMethod(alg string) (jwt.SigningMethod, bool) {
	switch alg {
	case "ES256":
		return jwt.SigningMethodES256, true
	case "EdDSA":
		return jwt.SigningMethodEdDSA, true
	case "RS256":
		return jwt.SigningMethodRS256, true
	}
	return nil, false
}

// newSigningKey makes a key.
func newSigningKey(alg string, created, active stamp) (*signingKey, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err = generateEd25519()
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("no signing algorithm %q", alg)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return parseSigningKey(alg, created, active, der)
}

func generateEd25519() (ed25519.PublicKey, crypto.Signer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	return public, private, err
}

// parseSigningKey checks that the key fits the algorithm.
func parseSigningKey(alg string, created, active stamp, der []byte) (*signingKey, error) {
	method, ok := signingMethod(alg)
	if !ok {
		return nil, fmt.Errorf("a signing key of unknown algorithm %.20q", alg)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("a signing key cannot be read: %w", err)
	}
	k := &signingKey{alg: alg, created: created, active: active, method: method, der: bytes.Clone(der)}
	switch private := parsed.(type) {
	case *ecdsa.PrivateKey:
		ok = alg == "ES256" && private.Curve == elliptic.P256()
		k.private, k.public = private, &private.PublicKey
	case ed25519.PrivateKey:
		ok = alg == "EdDSA"
		k.private, k.public = private, private.Public()
	case *rsa.PrivateKey:
		ok = alg == "RS256"
		k.private, k.public = private, &private.PublicKey
	default:
		ok = false
	}
	if !ok {
		return nil, fmt.Errorf("a signing key does not fit %s", alg)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	k.id = base64.RawURLEncoding.EncodeToString(sum[:9])
	return k, nil
}

// keySet is the keys as they were in the store at one time.
type keySet struct {
	raw    []byte        // the record
	keys   []*signingKey // the youngest last
	byID   map[string]*signingKey
	jwks   []byte
	etag   string
	loaded time.Time
}

// encodeKeys returns the record: format, number, then for each its algorithm,
// times and PKCS #8 form.
func encodeKeys(keys []*signingKey) []byte {
	w := recordWriter{b: []byte{signingKeysFormat}}
	w.number(uint64(len(keys)))
	for _, k := range keys {
		w.text(k.alg)
		w.number(uint64(k.created)) //nolint:gosec // after 1970
		w.number(uint64(k.active))  //nolint:gosec // after 1970
		w.text(string(k.der))
	}
	return w.b
}

func decodeKeys(raw []byte) ([]*signingKey, error) {
	if len(raw) == 0 || raw[0] != signingKeysFormat {
		return nil, errors.New("the record of the signing keys is in a format that this version does not know: update this node")
	}
	d := recordReader{b: raw[1:]}
	var keys []*signingKey
	for range d.number(maxSigningKeys) {
		alg := d.text()
		created, active := stamp(d.number(1<<50)), stamp(d.number(1<<50)) //nolint:gosec // bounded
		der := d.bytes()
		if d.bad {
			break
		}
		k, err := parseSigningKey(alg, created, active, der)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if d.bad || len(d.b) > 0 {
		return nil, errors.New("the record of the signing keys cannot be read")
	}
	return keys, nil
}

// signingKeys keeps the keys in the store and a copy of them here. All nodes
// share one record, changed by compare-and-swap.
type signingKeys struct {
	g   *Grants
	alg string

	set atomic.Pointer[keySet]

	mu      sync.Mutex
	loading chan struct{} // closed when the load under way is over
	failure error         // of the last load
	tried   time.Time     // when the last load began
}

// current returns the keys, read within the last keysFresh if the store can be
// reached. Without any it makes the first one.
func (s *signingKeys) current(ctx context.Context) (*keySet, error) {
	set := s.set.Load()
	if set != nil && s.g.cfg.Now().Sub(set.loaded) < keysFresh {
		return set, nil
	}
	err := s.load(ctx, keysUnknown)
	if set = s.set.Load(); set != nil {
		return set, nil
	}
	return nil, err
}

// find returns the key of that id, nil if there is none. For one that is not
// known it reads the store again, but not more often than each keysUnknown.
func (s *signingKeys) find(ctx context.Context, id string) (*signingKey, error) {
	set, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	if key := set.byID[id]; key != nil {
		return key, nil
	}
	if s.g.cfg.Now().Sub(set.loaded) < keysUnknown {
		return nil, nil
	}
	if err := s.load(ctx, keysUnknown); err != nil {
		return nil, err
	}
	return s.set.Load().byID[id], nil
}

// signer returns the key to sign with now: the youngest that is active, of the
// configured algorithm if there is one.
func (s *signingKeys) signer(ctx context.Context) (*signingKey, error) {
	set, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	now := s.g.cfg.Now()
	if key := activeKey(set.keys, s.alg, now); key != nil {
		return key, nil
	}
	if key := activeKey(set.keys, "", now); key != nil {
		return key, nil
	}
	return nil, oauth.ErrServerError.Describe("The server has no key to sign with").Because(errors.New("no signing key is active yet: is the clock of this node behind the others?"))
}

// activeKey is the youngest active key of the algorithm, of any for "".
func activeKey(keys []*signingKey, alg string, now time.Time) (best *signingKey) {
	for _, k := range keys {
		if (alg == "" || k.alg == alg) && !k.active.time().After(now) && (best == nil || k.active >= best.active) {
			best = k
		}
	}
	return best
}

// load reads the record, once for all who ask at the same time. gap is the least
// time since a load that failed.
func (s *signingKeys) load(ctx context.Context, gap time.Duration) error {
	now := s.g.cfg.Now()
	s.mu.Lock()
	wait := s.loading
	if wait == nil {
		if s.failure != nil && now.Sub(s.tried) < gap && now.Sub(s.tried) >= 0 {
			defer s.mu.Unlock()
			return s.failure
		}
		s.loading, s.tried = make(chan struct{}), now
	}
	s.mu.Unlock()
	if wait == nil {
		err := s.maintain(ctx, now, nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		if errors.Is(err, context.Canceled) {
			s.failure = nil // that was one caller's departure
		} else {
			s.failure = err
		}
		close(s.loading)
		s.loading = nil
		return err
	}
	if s.set.Load() != nil { // older ones do meanwhile
		return nil
	}
	select {
	case <-wait:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failure == nil && s.set.Load() == nil {
			return temporarily("The server has no signing keys yet, try again", nil)
		}
		return s.failure
	case <-ctx.Done():
		return temporarily("The signing keys cannot be read now, try again", ctx.Err())
	}
}

// maintain reads the keys, and writes them if some are due: the first one, the
// next one, or the removal of those that nobody needs any more. change, if not
// nil, is applied besides.
func (s *signingKeys) maintain(ctx context.Context, now time.Time, change func([]*signingKey) ([]*signingKey, error)) error {
	backend, err := s.g.open()
	if err != nil {
		return err
	}
	var raw []byte
	if change == nil {
		raw, err = backend.store.Get(ctx, signingKeysKey)
		switch {
		case errors.Is(err, store.ErrNotFound):
			raw = nil
		case errors.Is(err, store.ErrUnreadable):
			// The key that sealed it was dropped: the documented revocation of all
			// that it sealed, or nobody could ever sign again.
			s.g.cfg.Logger.Warn("the signing keys do not open with the encryption keys at hand and are replaced; all access tokens end now", slog.Any("error", err))
			if err := backend.store.Delete(ctx, signingKeysKey); err != nil {
				return storeTrouble(err)
			}
			raw = nil
		case err != nil:
			return storeTrouble(err)
		}
		if raw != nil {
			if set := s.set.Load(); set != nil && bytes.Equal(set.raw, raw) && !s.due(set.keys, now) {
				again := *set
				again.loaded = now
				s.set.Store(&again)
				return nil
			}
			keys, err := decodeKeys(raw)
			if err != nil {
				return oauth.ErrServerError.Describe("The server cannot read its signing keys").Because(err)
			}
			if !s.due(keys, now) {
				return s.use(raw, keys, now)
			}
		}
	}
	raw, err = s.write(ctx, backend.store, now, change)
	if err != nil {
		return err
	}
	keys, err := decodeKeys(raw)
	if err != nil {
		return err
	}
	return s.use(raw, keys, now)
}

// write applies what is due, and change, to the record. New keys are made
// outside the Update, one at most.
func (s *signingKeys) write(ctx context.Context, st store.Store, now time.Time, change func([]*signingKey) ([]*signingKey, error)) ([]byte, error) {
	fresh, err := newSigningKey(s.alg, stampOf(now), stampOf(now))
	if err != nil {
		return nil, err
	}
	var written []byte
	var broken error
	err = st.Update(ctx, signingKeysKey, func(old []byte) ([]byte, time.Duration, error) {
		var keys []*signingKey
		written, broken = nil, nil
		if old != nil {
			if keys, broken = decodeKeys(old); broken != nil {
				return nil, 0, broken
			}
		}
		keys = s.renew(keys, fresh, now)
		if change != nil {
			if keys, broken = change(keys); broken != nil {
				return nil, 0, broken
			}
		}
		written = encodeKeys(keys)
		return written, 0, nil
	})
	switch {
	case broken != nil:
		return nil, oauth.ErrServerError.Describe("The server cannot read its signing keys").Because(broken)
	case err != nil:
		return nil, storeTrouble(err)
	}
	return written, nil
}

// due reports whether renew would change anything.
func (s *signingKeys) due(keys []*signingKey, now time.Time) bool {
	return s.needsKey(keys, now) || slices.ContainsFunc(keys, func(k *signingKey) bool { return s.outlived(k, keys, now) })
}

// needsKey reports whether the next key is to be published: in time before the
// youngest of our algorithm has served for RotateKeys.
func (s *signingKeys) needsKey(keys []*signingKey, now time.Time) bool {
	var youngest *signingKey
	for _, k := range keys {
		if k.alg == s.alg && (youngest == nil || k.active > youngest.active) {
			youngest = k
		}
	}
	return youngest == nil || !now.Before(youngest.active.time().Add(s.g.cfg.RotateKeys-publishLead))
}

// outlived reports whether no good token can be signed with the key: another one
// of its algorithm took over, or of any if its own is no longer rotated, so long
// ago that its last token has ended.
func (s *signingKeys) outlived(k *signingKey, keys []*signingKey, now time.Time) bool {
	for _, next := range keys {
		end := next.active
		if next.alg != k.alg {
			// Nodes may be configured differently for a while, in a rolling update.
			end = max(end, k.active.add(s.g.cfg.RotateKeys))
		}
		if next.active > k.active && !now.Before(end.time().Add(s.g.cfg.AccessTTL+keyOverlap)) {
			return true
		}
	}
	return false
}

// renew removes what is outlived and adds the fresh key if one is needed: active
// at once if it is the first, after publishLead otherwise.
func (s *signingKeys) renew(keys []*signingKey, fresh *signingKey, now time.Time) []*signingKey {
	kept := slices.DeleteFunc(slices.Clone(keys), func(k *signingKey) bool { return s.outlived(k, keys, now) })
	if s.needsKey(kept, now) {
		next := *fresh
		if activeKey(kept, "", now) != nil {
			next.active = stampOf(now.Add(publishLead))
		}
		kept = append(kept, &next)
	}
	if len(kept) > maxSigningKeys {
		kept = kept[len(kept)-maxSigningKeys:]
	}
	return kept
}

// use makes the keys the current ones of this node.
func (s *signingKeys) use(raw []byte, keys []*signingKey, now time.Time) error {
	set := &keySet{raw: raw, keys: keys, byID: make(map[string]*signingKey, len(keys)), loaded: now}
	for _, k := range keys {
		set.byID[k.id] = k
	}
	var err error
	if set.jwks, set.etag, err = marshalJWKS(keys); err != nil {
		return err
	}
	s.set.Store(set)
	return nil
}

// RotateNow makes a new signing key and uses it at once, in an emergency. With
// drop all other keys are forgotten, which ends every access token: on this node
// at once, on others within 5 s, and where only the JWKS is read when that copy
// is 10 minutes old. Without drop they are kept as in a rotation on time;
// resource servers elsewhere refuse new tokens until they read the JWKS again.
func (g *Grants) RotateNow(ctx context.Context, drop bool) error {
	now := g.cfg.Now()
	fresh, err := newSigningKey(g.cfg.SigningAlg, stampOf(now), stampOf(now))
	if err != nil {
		return err
	}
	return g.keys.maintain(ctx, now, func(keys []*signingKey) ([]*signingKey, error) {
		if drop {
			return []*signingKey{fresh}, nil
		}
		// A key that waits for its first use gives way, or it would take over.
		keys = slices.DeleteFunc(keys, func(k *signingKey) bool { return k.active.time().After(now) })
		keys = append(keys, fresh)
		return keys[max(0, len(keys)-maxSigningKeys):], nil
	})
}

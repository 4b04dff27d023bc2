package proxyprovider

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
)

// grantID names a grant.
type grantID [16]byte

// String is the id as it stands in tokens and pages, base64url.
func (id grantID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// key is the store's key of the grant.
func (id grantID) key() string { return grantPrefix + id.String() }

// parseGrantID is the inverse of String.
func parseGrantID(s string) (id grantID, ok bool) {
	ok = decodeExactly(id[:], s)
	return id, ok
}

// decodeExactly fills dst from base64url without padding, of which there is one
// spelling only.
func decodeExactly(dst []byte, s string) bool {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst, []byte(s))
	return err == nil && n == len(dst) // fewer if there were line breaks
}

// stamp is a time in milliseconds since 1970, 0 for none.
type stamp int64

func stampOf(t time.Time) stamp                   { return stamp(t.UnixMilli()) }
func (s stamp) time() time.Time                   { return time.UnixMilli(int64(s)) }
func (s stamp) add(d time.Duration) stamp         { return s + stamp(d.Milliseconds()) }
func (s stamp) since(earlier stamp) time.Duration { return time.Duration(s-earlier) * time.Millisecond }

// grantRecord is all that is kept of a grant: one record, so that redemption,
// rotation, reuse detection and revocation are one compare-and-swap each.
//
// Codes and refresh tokens are kept as hashes. The answer to the last refresh is
// kept sealed under a key that only the presented token yields. Upstream tokens
// lie open in it, because the whole record is sealed by the store.
type grantRecord struct {
	// revoked makes the record a tombstone: nothing else is kept. It stays for
	// tombstoneTTL, so that the grant's transaction cannot create it again.
	revoked bool

	created  stamp
	lastUsed stamp

	clientID, clientName string
	// metadataHash is of the client's metadata at the login, at most 32 bytes.
	metadataHash []byte
	// authStrength is how well the client proved who it is, see authStrength.
	authStrength byte
	// refreshable tells that the client may have refresh tokens.
	refreshable bool
	redirectURI string
	// redirectOmitted tells that the authorization request named none.
	redirectOmitted  bool
	resource, scopes string

	identity idp.Identity
	// provenAt is when the upstream last said that this is so.
	provenAt stamp
	upstream idp.Tokens // zero if there are none
	// fence is the fencing number under which the upstream tokens were written.
	fence uint64

	// code is nil once the code's time is over.
	code *codeState

	// generation counts the answers with tokens; 0 until the code is redeemed.
	generation uint32
	// accessRevoked is the last generation whose access token was revoked alone.
	accessRevoked uint32
	// accessUntil is when the last of the access tokens ends.
	accessUntil stamp
	// refreshHash is of the current refresh token.
	refreshHash [32]byte
	// rotations are when the last generations began, the current one first. They
	// are kept as long as grace needs them, at most maxRotations.
	rotations []stamp
	// answer is what the last refresh was answered with, sealed; see keptAnswer.
	answer []byte
}

// codeState is the one-time code.
type codeState struct {
	hash, challenge [32]byte
	expires         stamp
	used            bool
}

const (
	grantFormat  = 1
	maxRotations = 8

	// maxGrantText bounds each text in a record, in bytes. The store bounds the
	// whole.
	maxGrantText   = 64 << 10
	maxGrantGroups = 1000
)

// The bits of the second byte.
const (
	bitRevoked = 1 << iota
	bitRefreshable
	bitRedirectOmitted
	bitCode
	bitCodeUsed
	bitRefresh
	bitUpstream
	bitEmailVerified
)

// errGrantRecord is returned for bytes that are no record.
var errGrantRecord = errors.New("the grant record cannot be read")

// encode returns the binary form: format (1 byte), bits (1 byte), then the
// fields in the order below. Numbers are varints, texts have their length
// before them, times count from created.
func (r *grantRecord) encode() ([]byte, error) {
	if r.revoked {
		return []byte{grantFormat, bitRevoked}, nil
	}
	w := recordWriter{b: make([]byte, 0, 1024), origin: r.created}
	w.b = append(w.b, grantFormat, r.bits())
	w.number(uint64(r.created)) //nolint:gosec // after 1970
	w.stamp(r.lastUsed)
	clientID, packed := packClientID(r.clientID)
	w.text(clientID)
	w.text(r.clientName)
	w.text(string(r.metadataHash))
	w.b = append(w.b, r.authStrength|packed)
	w.text(r.redirectURI)
	w.text(r.resource)
	w.text(r.scopes)
	if err := w.identity(&r.identity); err != nil {
		return nil, err
	}
	w.stamp(r.provenAt)
	if r.hasUpstream() {
		w.text(r.upstream.AccessToken)
		w.text(r.upstream.RefreshToken)
		w.text(r.upstream.Scope)
		var expiry stamp
		if !r.upstream.Expiry.IsZero() {
			expiry = stampOf(r.upstream.Expiry)
		}
		w.stamp(expiry)
	}
	w.number(r.fence)
	if r.code != nil {
		w.b = append(w.b, r.code.hash[:]...)
		w.b = append(w.b, r.code.challenge[:]...)
		w.stamp(r.code.expires)
	}
	w.number(uint64(r.generation))
	w.number(uint64(r.accessRevoked))
	w.stamp(r.accessUntil)
	if r.hasRefresh() {
		w.b = append(w.b, r.refreshHash[:]...)
	}
	w.number(uint64(len(r.rotations)))
	for _, at := range r.rotations {
		w.stamp(at)
	}
	w.text(string(r.answer))
	return w.b, nil
}

func (r *grantRecord) hasUpstream() bool { return r.upstream != (idp.Tokens{}) }
func (r *grantRecord) hasRefresh() bool  { return r.refreshHash != [32]byte{} }

func (r *grantRecord) bits() (bits byte) {
	for _, b := range []struct {
		set bool
		bit byte
	}{
		{r.refreshable, bitRefreshable},
		{r.redirectOmitted, bitRedirectOmitted},
		{r.code != nil, bitCode},
		{r.code != nil && r.code.used, bitCodeUsed},
		{r.hasRefresh(), bitRefresh},
		{r.hasUpstream(), bitUpstream},
		{r.identity.EmailVerified, bitEmailVerified},
	} {
		if b.set {
			bits |= b.bit
		}
	}
	return bits
}

// decodeGrant is the inverse of encode.
func decodeGrant(b []byte) (*grantRecord, error) {
	if len(b) < 2 {
		return nil, errGrantRecord
	}
	if b[0] > grantFormat {
		return nil, fmt.Errorf("%w: it is in format %d, this version knows %d", errNewerGrant, b[0], grantFormat)
	}
	bits := b[1]
	if b[0] != grantFormat || bits&bitRevoked != 0 && len(b) != 2 {
		return nil, errGrantRecord
	}
	if bits&bitRevoked != 0 {
		return &grantRecord{revoked: true}, nil
	}
	d := recordReader{b: b[2:]}
	r := &grantRecord{refreshable: bits&bitRefreshable != 0, redirectOmitted: bits&bitRedirectOmitted != 0}
	r.created = stamp(d.number(1 << 50)) //nolint:gosec // bounded
	d.origin = r.created
	r.lastUsed = d.stamp()
	r.clientID, r.clientName = d.text(), d.text()
	r.metadataHash = d.bytes()
	strength := d.byte()
	r.authStrength = strength &^ bitPackedID
	if strength&bitPackedID != 0 {
		r.clientID = base64.RawURLEncoding.EncodeToString([]byte(r.clientID))
	}
	r.redirectURI, r.resource, r.scopes = d.text(), d.text(), d.text()
	d.identity(&r.identity)
	r.identity.EmailVerified = bits&bitEmailVerified != 0
	r.provenAt = d.stamp()
	if bits&bitUpstream != 0 {
		r.upstream = idp.Tokens{AccessToken: d.text(), RefreshToken: d.text(), Scope: d.text()}
		if expiry := d.stamp(); expiry != 0 {
			r.upstream.Expiry = expiry.time()
		}
	}
	r.fence = d.number(1 << 62)
	if bits&bitCode != 0 {
		r.code = &codeState{used: bits&bitCodeUsed != 0}
		d.fill(r.code.hash[:])
		d.fill(r.code.challenge[:])
		r.code.expires = d.stamp()
	}
	r.generation = uint32(d.number(1<<32 - 1))    //nolint:gosec // bounded
	r.accessRevoked = uint32(d.number(1<<32 - 1)) //nolint:gosec // bounded
	r.accessUntil = d.stamp()
	if bits&bitRefresh != 0 {
		d.fill(r.refreshHash[:])
	}
	for range d.number(maxRotations) {
		r.rotations = append(r.rotations, d.stamp())
	}
	r.answer = d.bytes()
	if d.bad || len(d.b) > 0 {
		return nil, errGrantRecord
	}
	return r, nil
}

// bitPackedID is set in the byte of authStrength for a packed client id.
const bitPackedID = 1 << 7

// packClientID shortens a sealed client_id by a quarter: it is base64url.
func packClientID(id string) (packed string, bit byte) {
	if raw, err := decodeSegment(id); err == nil && len(raw) > 0 {
		return string(raw), bitPackedID
	}
	return id, 0
}

// recordWriter appends fields.
type recordWriter struct {
	b      []byte
	origin stamp
}

func (w *recordWriter) number(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// stamp writes 0 for none and else the distance from the origin, one more if it
// is not negative.
func (w *recordWriter) stamp(s stamp) {
	var distance int64
	if s != 0 {
		if distance = int64(s - w.origin); distance >= 0 {
			distance++
		}
	}
	w.b = binary.AppendVarint(w.b, distance)
}

func (w *recordWriter) text(s string) {
	w.number(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *recordWriter) identity(id *idp.Identity) error {
	w.text(id.Issuer)
	w.text(id.Subject)
	w.text(id.Email)
	w.text(id.Name)
	w.text(id.HostedDomain)
	if len(id.Groups) > maxGrantGroups {
		return fmt.Errorf("an identity with %d groups, more than %d", len(id.Groups), maxGrantGroups)
	}
	w.number(uint64(len(id.Groups)))
	for _, group := range id.Groups {
		w.text(group)
	}
	// Claims are JSON values of any type, so JSON is their form.
	var claims []byte
	if len(id.Claims) > 0 {
		var err error
		if claims, err = json.Marshal(id.Claims); err != nil {
			return err
		}
	}
	w.text(string(claims))
	return nil
}

// recordReader takes fields off the front. After the first that is ill-formed
// bad is set and all that follow are zero.
type recordReader struct {
	b      []byte
	origin stamp
	bad    bool
}

func (d *recordReader) fail() { d.bad, d.b = true, nil }

func (d *recordReader) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.b)
	// The second: a number has one spelling, the shortest.
	if size <= 0 || size > 1 && d.b[size-1] == 0 || n > most {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *recordReader) stamp() stamp {
	distance, size := binary.Varint(d.b)
	if size <= 0 || size > 1 && d.b[size-1] == 0 || distance > 1<<50 || distance < -1<<50 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	if distance == 0 {
		return 0
	}
	s := d.origin + stamp(distance)
	if distance > 0 {
		s--
	}
	if s == 0 { // which is written otherwise
		d.fail()
	}
	return s
}

func (d *recordReader) bytes() []byte {
	n := d.number(maxGrantText)
	if n > uint64(len(d.b)) {
		d.fail()
	}
	if n == 0 || d.bad {
		return nil
	}
	value := d.b[:n:n]
	d.b = d.b[n:]
	return value
}

func (d *recordReader) text() string { return string(d.bytes()) }

func (d *recordReader) byte() byte {
	var b [1]byte
	d.fill(b[:])
	return b[0]
}

func (d *recordReader) fill(dst []byte) {
	if len(d.b) < len(dst) {
		d.fail()
		return
	}
	copy(dst, d.b)
	d.b = d.b[len(dst):]
}

func (d *recordReader) identity(id *idp.Identity) {
	id.Issuer, id.Subject, id.Email, id.Name, id.HostedDomain = d.text(), d.text(), d.text(), d.text(), d.text()
	for range d.number(maxGrantGroups) {
		if d.bad {
			return
		}
		id.Groups = append(id.Groups, d.text())
	}
	claims := d.bytes()
	if len(claims) == 0 {
		return
	}
	if err := json.Unmarshal(claims, &id.Claims); err != nil || len(id.Claims) == 0 {
		d.fail()
	}
}

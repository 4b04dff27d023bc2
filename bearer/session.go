package bearer

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// sessionHeader is the session id of MCP revisions up to 2025-11-25
	// (transports, "Session Management").
	sessionHeader = "Mcp-Session-Id"
	// sessionDomain begins what the MAC is over, so that it is none of another
	// kind of value under the same key.
	sessionDomain = "mcp session v1"
	// sessionMACSize is the part of the MAC that is sent, in bytes.
	sessionMACSize = 16
)

// SessionKey makes and checks the MACs that bind MCP sessions to users. The
// parts are separate: no byte may move from one to the next.
type SessionKey interface {
	MAC(parts ...[]byte) [sha256.Size]byte
	// VerifyMAC reports, in constant time, whether mac is the beginning of the MAC
	// of the parts, at least 16 bytes, under any key that is in use.
	VerifyMAC(mac []byte, parts ...[]byte) bool
}

// NewSessionKey returns a SessionKey of at least 32 random bytes. Servers that
// share sessions need the same key.
func NewSessionKey(key []byte) (SessionKey, error) {
	if len(key) < sha256.Size {
		return nil, fmt.Errorf("a session key needs at least %d random bytes", sha256.Size)
	}
	return hmacKey(append([]byte(nil), key...)), nil
}

// randomSessionKey is the key where none is configured: sessions end with the
// process, as those of most MCP servers do.
func randomSessionKey() func() (SessionKey, error) {
	key := make(hmacKey, sha256.Size)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return func() (SessionKey, error) { return key, nil }
}

type hmacKey []byte

// MAC is HMAC-SHA256 over the parts, each after its length.
func (k hmacKey) MAC(parts ...[]byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, k)
	for _, part := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash never fails
		_, _ = h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

func (k hmacKey) VerifyMAC(mac []byte, parts ...[]byte) bool {
	want := k.MAC(parts...)
	return len(mac) >= sessionMACSize && len(mac) <= len(want) && hmac.Equal(mac, want[:len(mac)])
}

// session is the MCP session id of one request and its answer in both its forms,
// "" if there is none. It is bound to the user (SECURITY §7): outside it carries a
// MAC, the server behind never sees that.
type session struct{ id, bound string }

// sessionOwner is who a session is bound to, and where.
type sessionOwner struct {
	keys     func() (SessionKey, error)
	resource string
	info     *oauth.TokenInfo
	token    string
}

// open takes the MAC off the session id of the request. A refusal is returned
// for an id that is not this user's.
// odd tells that the header has the name in another spelling, too.
func (s *session) open(h http.Header, odd bool, owner sessionOwner) *sessionRefusal {
	values := h[sessionHeader]
	switch {
	case odd:
		// CGI and what follows it take Mcp_Session_Id for the same header.
		return &severalSessions
	case values == nil:
		return nil
	case len(values) != 1:
		return &severalSessions
	}
	id, ok, err := owner.unbind(values[0])
	switch {
	case err != nil:
		return &sessionRefusal{status: http.StatusServiceUnavailable, err: err}
	case !ok:
		return &unknownSession
	}
	s.id, s.bound = id, values[0]
	h[sessionHeader] = []string{id}
	return nil
}

// unbind returns the id that the server gave, false if this user may not use it.
func (o *sessionOwner) unbind(bound string) (id string, ok bool, err error) {
	dot := strings.LastIndexByte(bound, '.')
	if dot < 1 {
		return "", false, nil
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(bound[dot+1:])
	if err != nil || len(mac) != sessionMACSize || base64.RawURLEncoding.EncodedLen(len(mac)) != len(bound)-dot-1 {
		return "", false, nil
	}
	key, err := o.keys()
	if err != nil {
		return "", false, err
	}
	id = bound[:dot]
	return id, key.VerifyMAC(mac, o.parts(id)...), nil
}

// bind puts the MAC on the session ids of the answer. Ids are not looked into:
// whatever the server gives, it gets back.
func (s *session) bind(h http.Header, owner sessionOwner) error {
	values := h[sessionHeader]
	for i, id := range values {
		if id == "" || id == s.bound {
			continue
		}
		if id == s.id { // most servers repeat it in every answer
			values[i] = s.bound
			continue
		}
		key, err := owner.keys()
		if err != nil {
			return err
		}
		mac := key.MAC(owner.parts(id)...)
		values[i] = id + "." + base64.RawURLEncoding.EncodeToString(mac[:sessionMACSize])
		s.id, s.bound = id, values[i]
	}
	return nil
}

// parts are what the MAC is over. A user is (issuer, sub); a machine is its
// client; what is neither is its token, since all users of a client may have such
// tokens.
func (o *sessionOwner) parts(id string) [][]byte {
	kind, owner := "user", o.info.UserID
	if owner == "" && isMachines(o.info) {
		kind, owner = "client", o.info.ClientID
	}
	if owner == "" {
		sum := sha256.Sum256([]byte(o.token))
		kind, owner = "token", string(sum[:])
	}
	return [][]byte{[]byte(sessionDomain), []byte(o.resource), []byte(o.info.Issuer), []byte(kind), []byte(owner), []byte(id)}
}

// isMachines reports whether a token without a user is known to be its client's
// own. RFC 9068 §2.2 and most servers give such tokens a sub; of those that do not,
// some say how the token was obtained, or what it stands for: grant_type or gty
// (Auth0), idtyp (Entra). Without that it may be anybody's who uses the client.
func isMachines(info *oauth.TokenInfo) bool {
	if info.UserID != "" {
		return false
	}
	for _, name := range []string{"grant_type", "gty"} {
		if grant := info.Extra[name]; grant == "client_credentials" || grant == "client-credentials" {
			return true
		}
	}
	return info.Extra["idtyp"] == "app"
}

// sessionRefusal is the answer to a request with a session id that cannot be
// used.
type sessionRefusal struct {
	status int
	body   string
	// err, if not nil, tells that it could not be judged.
	err error
}

// The answers of the SDK's server transport, which clients know: after a 404
// they begin a new session (transports, "Session Management" 4).
var (
	unknownSession  = sessionRefusal{status: http.StatusNotFound, body: `{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}`}
	severalSessions = sessionRefusal{status: http.StatusBadRequest, body: `{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Mcp-Session-Id header must be a single value"},"id":null}`}
)

var errNoSessionKey = errors.New("the key that binds MCP sessions to users cannot be opened")

func (f *sessionRefusal) write(w http.ResponseWriter, r *http.Request) {
	if f.err != nil {
		(&refusal{err: noSessionKey(f.err)}).write(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, r, f.status, []byte(f.body))
}

func noSessionKey(cause error) *oauth.Error {
	return oauth.ErrTemporarilyUnavailable.Describe("MCP sessions cannot be checked now, try again").Because(errors.Join(errNoSessionKey, cause))
}

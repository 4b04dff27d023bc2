package proxyprovider

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
)

const (
	maxMemories = 32
	// maxMemory is what the cookie holds before it is sealed and encoded, in bytes.
	maxMemory    = 2560
	memoryFormat = 1
)

// memory is one remembered consent. It holds no name of anything: only who has
// the key can tell what it is about, and only by comparing.
type memory struct {
	// about is a MAC over issuer (in the key), client, redirect URI, resource and
	// the client's metadata, so that a change of any of them is a new question.
	about   [16]byte
	user    userHash
	expires stamp
	// scopes are MACs too, one each, so that fewer scopes are found in more.
	scopes []scopeMAC
}

type scopeMAC [6]byte

// userHashOf names the user, by issuer and subject.
func userHashOf(who *idp.Identity) userHash {
	sum := sha256.Sum256([]byte(SubjectKey(who.Issuer, who.Subject)))
	return userHash(sum[:8])
}

// newMemory is what would be remembered of the request.
func (s *brokerSeals) newMemory(request *authRequest) memory {
	var m memory
	about := s.memory.MAC([]byte("consent"), []byte(request.clientID), []byte(request.redirectURI),
		[]byte(request.resource), request.metadataHash[:])
	copy(m.about[:], about[:])
	for _, scope := range request.scopes {
		mac := s.memory.MAC([]byte("scope"), about[:], []byte(scope))
		m.scopes = append(m.scopes, scopeMAC(mac[:len(scopeMAC{})]))
	}
	slices.SortFunc(m.scopes, func(a, b scopeMAC) int { return bytes.Compare(a[:], b[:]) })
	return m
}

// covers reports whether all that n asks for was allowed by m.
func (m *memory) covers(n *memory) bool {
	return m.about == n.about && !slices.ContainsFunc(n.scopes, func(s scopeMAC) bool { return !slices.Contains(m.scopes, s) })
}

// remembers reports whether the request was allowed in this browser before, by
// the user if one is given.
func (b *browserFlow) remembers(seals *brokerSeals, r *http.Request, request *authRequest, user *userHash) bool {
	if b.cfg.Consent.Remember < 0 {
		return false
	}
	wanted := seals.newMemory(request)
	return slices.ContainsFunc(b.memories(seals, r), func(m memory) bool {
		return m.covers(&wanted) && (user == nil || m.user == *user)
	})
}

// remember adds what the user allowed to the browser's memory.
func (b *Broker) remember(w http.ResponseWriter, r *http.Request, seals *brokerSeals, request *authRequest, user userHash) {
	life := b.cfg.Consent.Remember
	if life < 0 || !mayBeSilent(request.redirectURI) {
		return
	}
	added := seals.newMemory(request)
	added.user = user
	added.expires = stampOf(b.cfg.Now().Add(life))
	memories := slices.DeleteFunc(b.memories(seals, r), func(m memory) bool { return m.user == user && added.covers(&m) })
	memories = append(memories, added)
	encoded := encodeMemories(memories)
	for len(memories) > maxMemories || len(encoded) > maxMemory {
		memories = memories[1:] // the oldest
		encoded = encodeMemories(memories)
	}
	sealed, err := seals.memory.Seal(encoded, b.cfg.Now().Add(life))
	if err != nil {
		b.cfg.Logger.Error("consent cannot be remembered", "error", err)
		return
	}
	b.jar.set(w, b.jar.memory, sealed, life, http.SameSiteLaxMode)
}

// memories returns what the browser remembers, the oldest first. A cookie that
// is no good remembers nothing.
func (b *browserFlow) memories(seals *brokerSeals, r *http.Request) []memory {
	sealed := cookie(r, b.jar.memory)
	if sealed == "" {
		return nil
	}
	plaintext, err := seals.memory.Open(sealed, b.cfg.Now())
	if err != nil {
		return nil
	}
	memories, err := decodeMemories(plaintext)
	if err != nil {
		return nil
	}
	now := stampOf(b.cfg.Now())
	// Also those that last longer than today's setting allows: it was shortened.
	latest := now.add(b.cfg.Consent.Remember)
	return slices.DeleteFunc(memories, func(m memory) bool { return m.expires <= now || m.expires > latest })
}

// encodeMemories returns the binary form: a format, then for each the MAC, the
// user, the expiry in seconds, and the scopes after their number.
func encodeMemories(memories []memory) []byte {
	w := recordWriter{b: []byte{memoryFormat}}
	for _, m := range memories {
		w.b = append(w.b, m.about[:]...)
		w.b = append(w.b, m.user[:]...)
		w.number(uint64(m.expires / 1000)) //nolint:gosec // after 1970
		w.number(uint64(len(m.scopes)))
		for _, s := range m.scopes {
			w.b = append(w.b, s[:]...)
		}
	}
	return w.b
}

var errMemories = errors.New("the remembered consent cannot be read")

// decodeMemories is the inverse of encodeMemories.
func decodeMemories(b []byte) ([]memory, error) {
	d := recordReader{b: b}
	if d.byte() != memoryFormat {
		return nil, errMemories
	}
	var memories []memory
	for len(d.b) > 0 {
		if len(memories) == maxMemories {
			return nil, errMemories
		}
		var m memory
		d.fill(m.about[:])
		d.fill(m.user[:])
		m.expires = stampOf(time.Unix(int64(d.number(1<<40)), 0)) //nolint:gosec // bounded
		n := d.number(uint64(maxMemory / len(scopeMAC{})))
		for range n {
			var s scopeMAC
			d.fill(s[:])
			m.scopes = append(m.scopes, s)
			if d.bad {
				break
			}
		}
		memories = append(memories, m)
	}
	if d.bad {
		return nil, errMemories
	}
	return memories, nil
}

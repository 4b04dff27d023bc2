package proxyprovider

import (
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// sealers opens the keys on first use and seals what this package hands out.
// Everything is bound to our issuer and to the upstream: after a change of the
// upstream, ids and refresh tokens of the old one are not sent to the new one.
type sealers struct {
	issuer   string
	upstream string
	open     func() (*seal.Ring, error)
	log      *slog.Logger

	mu      sync.Mutex
	opening chan struct{} // closed when the attempt under way is over
	ready   *readySealers
}

type readySealers struct {
	ring              *seal.Ring
	id, refresh, code *seal.Sealer
}

// get returns the sealers, opening the keys if that has not succeeded yet. One
// attempt runs at a time, outside the lock.
func (s *sealers) get() (*readySealers, error) {
	for {
		s.mu.Lock()
		ready, wait := s.ready, s.opening
		if ready == nil && wait == nil {
			s.opening = make(chan struct{})
		}
		s.mu.Unlock()
		switch {
		case ready != nil:
			return ready, nil
		case wait == nil:
			return s.attempt()
		}
		<-wait
	}
}

// attempt opens the keys and ends the wait of others, whatever happens.
func (s *sealers) attempt() (ready *readySealers, err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.opening)
		s.opening, s.ready = nil, ready
	}()
	ring, err := s.openRing()
	if err != nil {
		return nil, oauth.ErrServerError.Describe("The server cannot open its encryption key").Because(err)
	}
	return &readySealers{
		ring:    ring,
		id:      ring.Sealer(seal.PurposeProxyID, s.issuer),
		refresh: ring.Sealer(seal.PurposeProxyRefresh, s.issuer),
		code:    ring.Sealer(seal.PurposeRelayCode, s.issuer),
	}, nil
}

func (s *sealers) openRing() (*seal.Ring, error) {
	if s.open != nil {
		return s.open()
	}
	s.log.Warn("no encryption key is configured: a random one is used, so clients must register again after a restart")
	return seal.NewRing(seal.GenerateKey())
}

// sealID returns the client_id for a client registered upstream.
func (s *sealers) sealID(plaintext []byte) (string, error) {
	ready, err := s.get()
	if err != nil {
		return "", err
	}
	return ready.id.Seal(plaintext, time.Time{}, s.upstream)
}

// openID is the inverse of sealID; seal.ErrInvalid if the id is not ours.
func (s *sealers) openID(id string, now time.Time) ([]byte, error) {
	ready, err := s.get()
	if err != nil {
		return nil, err
	}
	return ready.id.Open(id, now, s.upstream)
}

// sealRefresh wraps the upstream's refresh token for one client. The upstream
// decides how long it lives.
func (s *sealers) sealRefresh(token, clientID string) (string, error) {
	ready, err := s.get()
	if err != nil {
		return "", err
	}
	return ready.refresh.Seal([]byte(token), time.Time{}, s.upstream, clientID)
}

// openRefresh is the inverse of sealRefresh; seal.ErrInvalid if the token is
// not ours or was given to another client.
func (s *sealers) openRefresh(token, clientID string, now time.Time) (string, error) {
	ready, err := s.get()
	if err != nil {
		return "", err
	}
	plaintext, err := ready.refresh.Open(token, now, s.upstream, clientID)
	return string(plaintext), err
}

// ring returns the key ring.
func (s *sealers) ring() (*seal.Ring, error) {
	ready, err := s.get()
	if err != nil {
		return nil, err
	}
	return ready.ring, nil
}

// sealCode returns the code that one client gets.
func (s *sealers) sealCode(plaintext []byte, clientID string, expires time.Time) (string, error) {
	ready, err := s.get()
	if err != nil {
		return "", err
	}
	return ready.code.Seal(plaintext, expires, s.upstream, clientID)
}

// openCode is the inverse of sealCode; seal.ErrInvalid if the code is not ours,
// was given to another client, or is too old.
func (s *sealers) openCode(code, clientID string, now time.Time) ([]byte, error) {
	ready, err := s.get()
	if err != nil {
		return nil, err
	}
	return ready.code.Open(code, now, s.upstream, clientID)
}

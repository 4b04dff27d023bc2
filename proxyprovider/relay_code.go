package proxyprovider

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// relayCodeTime is how long the client has to redeem a code.
const relayCodeTime = 60 * time.Second

// relayCode is what the code holds that a relay gives to a client, sealed for
// that client alone.
//
// As bytes: format (1), bits (below), hash of the redirect URI (32), challenge
// (32), and the upstream's code.
type relayCode struct {
	redirect        [sha256.Size]byte
	redirectOmitted bool
	// challenge is the client's; challenged tells that the upstream has it too.
	challenge  [sha256.Size]byte
	challenged bool
	upstream   string
}

const (
	relayCodeFormat = 1

	bitCodeOmitted    = 1
	bitCodeChallenged = 2
)

var errRelayCode = errors.New("the sealed code cannot be read")

func (c *relayCode) encode() []byte {
	bits := byte(0)
	if c.redirectOmitted {
		bits |= bitCodeOmitted
	}
	if c.challenged {
		bits |= bitCodeChallenged
	}
	b := append([]byte{relayCodeFormat, bits}, c.redirect[:]...)
	b = append(b, c.challenge[:]...)
	return append(b, c.upstream...)
}

// decodeRelayCode is the inverse of encode.
func decodeRelayCode(b []byte) (*relayCode, error) {
	const header = 2 + 2*sha256.Size
	if len(b) <= header || b[0] != relayCodeFormat || b[1] > bitCodeOmitted|bitCodeChallenged {
		return nil, errRelayCode
	}
	return &relayCode{
		redirect:        [sha256.Size]byte(b[2 : 2+sha256.Size]),
		redirectOmitted: b[1]&bitCodeOmitted != 0,
		challenge:       [sha256.Size]byte(b[2+sha256.Size : header]),
		challenged:      b[1]&bitCodeChallenged != 0,
		upstream:        string(b[header:]),
	}, nil
}

// sealCode returns the code for the client.
func (y *relay) sealCode(tx *transaction, upstreamCode string) (string, error) {
	code := &relayCode{
		redirect:        sha256.Sum256([]byte(tx.request.redirectURI)),
		redirectOmitted: tx.request.redirectOmitted,
		challenged:      tx.challenged,
		upstream:        upstreamCode,
	}
	if !decodeExactly(code.challenge[:], tx.request.challenge) {
		return "", errors.New("a transaction without a challenge")
	}
	return y.proxy.clients.seals.sealCode(code.encode(), tx.request.clientID, y.cfg.Now().Add(relayCodeTime))
}

// openCode returns what to redeem upstream in place of what the client sent. A
// code that was used goes upstream again within its 60 seconds and is refused
// there: nothing is stored here that could tell.
func (y *relay) openCode(c *oauth.Client, x authserver.CodeExchange) (authserver.CodeExchange, error) {
	refused := func(description string, cause error) (authserver.CodeExchange, error) {
		return x, oauth.ErrInvalidGrant.Describe(description).Because(cause)
	}
	plaintext, err := y.proxy.clients.seals.openCode(x.Code, c.ClientID, y.cfg.Now())
	switch {
	case errors.Is(err, seal.ErrExpired):
		return refused("The authorization code has expired, it is good for 60 seconds; sign in again", err)
	case errors.Is(err, seal.ErrInvalid):
		return refused("The authorization code is not valid for this client; sign in again", err)
	case err != nil:
		return x, err
	}
	code, err := decodeRelayCode(plaintext)
	if err != nil {
		return refused("The authorization code is not valid for this client; sign in again", err)
	}
	// RFC 6749 §4.1.3: needed if the authorization request had one, and equal.
	sent := sha256.Sum256([]byte(x.RedirectURI))
	if subtle.ConstantTimeCompare(sent[:], code.redirect[:]) != 1 && (x.RedirectURI != "" || !code.redirectOmitted) {
		return refused("redirect_uri does not match the authorization request", nil)
	}
	// RFC 7636 §4.6. Whether or not the upstream checks it too.
	if !oauth.VerifyS256(x.Verifier, base64.RawURLEncoding.EncodeToString(code.challenge[:])) {
		return refused("code_verifier does not match the challenge", nil)
	}
	x.Code, x.RedirectURI = code.upstream, y.callbackURL()
	if !code.challenged {
		x.Verifier = "" // RFC 9700 §4.8.2: a verifier without a challenge is refused
	}
	return x, nil
}

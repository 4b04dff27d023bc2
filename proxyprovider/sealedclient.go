package proxyprovider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// maxSealedID is the longest client_id that is handed out, in characters.
const maxSealedID = 1024

// sealedClient is what the client_id of a registered client holds: all that is
// remembered of it.
//
// As bytes: format (1, or 2 for a client that is registered upstream with our
// callback), for format 2 what tells that callback from others (8), method, grant types and application type (1 each, bits
// below), secret expiry (uvarint, seconds since 1970), then as strings with
// their length before them: upstream client_id, secret, name, scope, and the
// redirect URIs up to the end.
type sealedClient struct {
	upstreamID      string
	secret          string
	secretExpiresAt int64
	method          string // towards the upstream
	// anyMethod tells that the client named no method and may send its secret either
	// way, whatever the upstream chose.
	anyMethod       bool
	redirectURIs    []string
	grantTypes      []string
	applicationType string
	name            string
	scope           string
	// callback is our redirect URI that was registered upstream in place of the
	// client's own; the zero value if those were.
	callback callbackHash
}

const (
	directClientFormat  = 1
	relayedClientFormat = 2
)

// callbackHash tells a callback URL of ours from others. Being sealed, it need
// not withstand who looks for a collision.
type callbackHash [8]byte

func hashCallback(url string) callbackHash {
	sum := sha256.Sum256([]byte(url))
	return callbackHash(sum[:8])
}

var errSealedClient = errors.New("the sealed client cannot be read")

// The tables give each value its number; they only ever grow at the end, and that
// of the methods does not, see methodNumber.
func sealedMethods() []string {
	return []string{oauth.AuthMethodNone, oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost}
}

func sealedGrantTypes() []string {
	return []string{oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken, oauth.GrantTypeClientCredentials}
}

func sealedApplicationTypes() []string {
	return []string{"", oauth.ApplicationTypeNative, oauth.ApplicationTypeWeb}
}

// methodNumber is that of the method in sealedMethods, with those for clients that
// may use any behind them.
func (c *sealedClient) methodNumber() int {
	number := max(slices.Index(sealedMethods(), c.method), 0)
	if c.anyMethod && number > 0 {
		number += len(sealedMethods()) - 1
	}
	return number
}

// setMethod is the inverse of methodNumber.
func (c *sealedClient) setMethod(number int) error {
	methods := sealedMethods()
	if c.anyMethod = number >= len(methods); c.anyMethod {
		number -= len(methods) - 1
	}
	if number >= len(methods) {
		return errSealedClient
	}
	c.method = methods[number]
	return nil
}

// encode returns the binary form. What has no number is left out: a grant type
// that nobody here offers, an application type that means nothing.
func (c *sealedClient) encode() []byte {
	application := max(slices.Index(sealedApplicationTypes(), c.applicationType), 0)
	grants := 0
	for i, g := range sealedGrantTypes() {
		if slices.Contains(c.grantTypes, g) {
			grants |= 1 << i
		}
	}
	b := []byte{directClientFormat}
	if c.callback != (callbackHash{}) {
		b = append([]byte{relayedClientFormat}, c.callback[:]...)
	}
	b = append(b, byte(c.methodNumber()), byte(grants), byte(application))
	b = binary.AppendUvarint(b, uint64(max(c.secretExpiresAt, 0))) //nolint:gosec // not negative
	for _, s := range append([]string{c.upstreamID, c.secret, c.name, c.scope}, c.redirectURIs...) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// decodeSealedClient is the inverse of encode.
func decodeSealedClient(b []byte) (*sealedClient, error) {
	c := new(sealedClient)
	switch {
	case len(b) > 0 && b[0] == directClientFormat:
		b = b[1:]
	case len(b) > len(c.callback) && b[0] == relayedClientFormat && callbackHash(b[1:1+len(c.callback)]) != callbackHash{}:
		c.callback = callbackHash(b[1 : 1+len(c.callback)])
		b = b[1+len(c.callback):]
	default:
		return nil, errSealedClient
	}
	if len(b) < 3 || int(b[1]) >= 1<<len(sealedGrantTypes()) || int(b[2]) >= len(sealedApplicationTypes()) {
		return nil, errSealedClient
	}
	if err := c.setMethod(int(b[0])); err != nil {
		return nil, err
	}
	c.applicationType = sealedApplicationTypes()[b[2]]
	for i, g := range sealedGrantTypes() {
		if b[1]&(1<<i) != 0 {
			c.grantTypes = append(c.grantTypes, g)
		}
	}
	b = b[3:]
	expiry, n := binary.Uvarint(b)
	if n <= 0 || expiry > 1<<62 {
		return nil, errSealedClient
	}
	c.secretExpiresAt = int64(expiry)
	b = b[n:]
	var texts []string
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) { //nolint:gosec // not negative
			return nil, errSealedClient
		}
		texts = append(texts, string(b[n:n+int(size)])) //nolint:gosec // at most len(b)
		b = b[n+int(size):]                             //nolint:gosec // at most len(b)
	}
	if len(texts) < 5 || texts[0] == "" {
		return nil, errSealedClient
	}
	c.upstreamID, c.secret, c.name, c.scope = texts[0], texts[1], texts[2], texts[3]
	c.redirectURIs = texts[4:]
	return c, nil
}

// fit drops what is optional, until the sealed id is short enough: the name is
// only shown, and the upstream holds the client to its scope by itself. It
// reports whether it fits now.
func (c *sealedClient) fit() bool {
	fits := func() bool {
		return base64.RawURLEncoding.EncodedLen(len(c.encode())+seal.Overhead) <= maxSealedID
	}
	if !fits() {
		c.name = ""
	}
	if !fits() {
		c.scope = ""
	}
	return fits()
}

package authserver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	// maxSealedID is the longest client_id that is handed out, maxShortID the
	// longest for a client with one redirect URI, in characters: some clients
	// keep ids in columns of 255.
	maxSealedID = 1 << 10
	maxShortID  = 255
	// sealedNonce makes each confidential registration another client.
	sealedNonce = 16
	// minName is what is kept of a name at the least when it must be cut.
	minName = 16
)

// sealedClient is what the client_id of a registered client holds, which is
// all that is remembered of it.
//
// As bytes: format (1), bits (1, below); for a confidential client 16 random
// bytes, the time of issue (uvarint, seconds since 1970) and the life of the
// secret (uvarint, seconds, 0 for ever); then packed texts with their length
// before them: name, scope, client_uri, and the redirect URIs up to the end.
type sealedClient struct {
	method          string
	applicationType string
	refresh         bool // grant type refresh_token beside authorization_code
	redirectURIs    []string
	name            string
	scope           string
	clientURI       string

	// Of a confidential client.
	nonce      [sealedNonce]byte
	issued     int64
	secretLife int64
}

const sealedClientFormat = 1

// The bits of the second byte: 0–1 method, 2–3 application type, 4 refresh.
const bitSealedRefresh = 1 << 4

var errSealedClient = errors.New("the sealed client cannot be read")

// The tables give each value its number; they only ever grow at the end.
func sealedMethods() []string {
	return []string{oauth.AuthMethodNone, "", oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost}
}

func sealedApplicationTypes() []string {
	return []string{"", oauth.ApplicationTypeNative, oauth.ApplicationTypeWeb}
}

// newSealedClient takes from the metadata what is remembered.
func newSealedClient(m *oauth.ClientMetadata) *sealedClient {
	return &sealedClient{
		method:          m.TokenEndpointAuthMethod,
		applicationType: m.ApplicationType,
		refresh:         m.AllowsGrant(oauth.GrantTypeRefreshToken),
		redirectURIs:    m.RedirectURIs,
		name:            m.ClientName,
		scope:           m.Scope,
		clientURI:       m.ClientURI,
	}
}

// metadata is the inverse of newSealedClient.
func (c *sealedClient) metadata() oauth.ClientMetadata {
	m := oauth.ClientMetadata{
		RedirectURIs:            c.redirectURIs,
		TokenEndpointAuthMethod: c.method,
		GrantTypes:              []string{oauth.GrantTypeAuthorizationCode},
		ResponseTypes:           []string{"code"},
		ClientName:              c.name,
		ClientURI:               c.clientURI,
		Scope:                   c.scope,
		ApplicationType:         c.applicationType,
	}
	if c.refresh {
		m.GrantTypes = append(m.GrantTypes, oauth.GrantTypeRefreshToken)
	}
	return m
}

func (c *sealedClient) confidential() bool { return c.method != oauth.AuthMethodNone }

// secretExpiresAt is in seconds since 1970, 0 for never.
func (c *sealedClient) secretExpiresAt() int64 {
	if c.secretLife == 0 {
		return 0
	}
	return c.issued + c.secretLife
}

func (c *sealedClient) encode(p *textPacker) []byte {
	method, application := slices.Index(sealedMethods(), c.method), slices.Index(sealedApplicationTypes(), c.applicationType)
	bits := byte(max(method, 0)) | byte(max(application, 0))<<2
	if c.refresh {
		bits |= bitSealedRefresh
	}
	b := make([]byte, 0, 192)
	b = append(b, sealedClientFormat, bits)
	if c.confidential() {
		b = append(b, c.nonce[:]...)
		b = binary.AppendUvarint(b, uint64(c.issued))
		b = binary.AppendUvarint(b, uint64(c.secretLife))
	}
	var packed []byte
	text := func(s string) {
		packed = p.pack(packed[:0], s)
		b = binary.AppendUvarint(b, uint64(len(packed)))
		b = append(b, packed...)
	}
	text(c.name)
	text(c.scope)
	text(c.clientURI)
	for _, uri := range c.redirectURIs {
		text(uri)
	}
	return b
}

// decodeSealedClient is the inverse of encode.
func decodeSealedClient(b []byte, p *textPacker) (*sealedClient, error) {
	if len(b) < 2 || b[0] != sealedClientFormat {
		return nil, errSealedClient
	}
	bits := b[1]
	method, application := int(bits&3), int(bits>>2&3)
	if bits>>5 != 0 || application >= len(sealedApplicationTypes()) {
		return nil, errSealedClient
	}
	c := &sealedClient{method: sealedMethods()[method], applicationType: sealedApplicationTypes()[application], refresh: bits&bitSealedRefresh != 0}
	b = b[2:]
	if c.confidential() {
		if len(b) < sealedNonce {
			return nil, errSealedClient
		}
		copy(c.nonce[:], b)
		b = b[sealedNonce:]
		for _, number := range []*int64{&c.issued, &c.secretLife} {
			n, size := binary.Uvarint(b)
			if size <= 0 || n > 1<<50 {
				return nil, errSealedClient
			}
			*number, b = int64(n), b[size:]
		}
	}
	var texts []string
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, errSealedClient
		}
		text, ok := p.unpack(b[size : size+int(n)])
		if !ok {
			return nil, errSealedClient
		}
		texts = append(texts, text)
		b = b[size+int(n):]
	}
	if len(texts) < 4 {
		return nil, errSealedClient
	}
	c.name, c.scope, c.clientURI, c.redirectURIs = texts[0], texts[1], texts[2], texts[3:]
	return c, nil
}

// sealedLength is how long the id will be, in characters.
func (c *sealedClient) sealedLength(p *textPacker) int {
	return base64.RawURLEncoding.EncodedLen(len(c.encode(p)) + seal.Overhead)
}

// fit drops what is optional until the id is short enough: first client_uri,
// which is only shown, then scope, which only narrows what the client may ask
// for, then the end of the name, then all of it. For one redirect URI it does so
// to get below maxShortID; if even that does not help, the limit is maxSealedID.
// It reports whether the id fits.
func (c *sealedClient) fit(p *textPacker) bool {
	if len(c.redirectURIs) == 1 {
		short := *c
		if short.fitIn(p, maxShortID) {
			*c = short
			return true
		}
	}
	return c.fitIn(p, maxSealedID)
}

func (c *sealedClient) fitIn(p *textPacker, limit int) bool {
	excess := func() int { return c.sealedLength(p) - limit }
	if excess() <= 0 {
		return true
	}
	if c.clientURI = ""; excess() <= 0 {
		return true
	}
	if c.scope = ""; excess() <= 0 {
		return true
	}
	for e := excess(); e > 0 && utf8.RuneCountInString(c.name) > minName; e = excess() {
		c.name = cutName(c.name)
	}
	if excess() > 0 {
		c.name = ""
	}
	return excess() <= 0
}

// cutName takes the last character off a name, and the space before it.
func cutName(name string) string {
	_, size := utf8.DecodeLastRuneInString(name)
	return strings.TrimRight(name[:len(name)-size], " ")
}

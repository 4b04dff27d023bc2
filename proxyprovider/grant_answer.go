package proxyprovider

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// grantAnswer is a token response.
type grantAnswer struct {
	access    *accessToken
	expiresIn time.Duration
	scope     string
	refresh   *refreshToken // nil if there is none
}

// tokens is the response. It depends on nothing but the answer, so that the
// same one gives the same bytes.
func (a *grantAnswer) tokens() *oauth.Tokens {
	t := &oauth.Tokens{AccessToken: a.access.String(), TokenType: "Bearer", ExpiresIn: &a.expiresIn, Scope: a.scope}
	if a.refresh != nil {
		t.RefreshToken = a.refresh.String()
	}
	return t
}

var errAnswer = errors.New("the kept answer does not open")

// keepAnswer seals the answer under a key that only the presented token yields,
// so that the store and its keys do not give it away (SECURITY §5). Of the
// tokens that nobody was given there is no answer: the presented one is kept
// nowhere.
func (g *Grants) keepAnswer(s *grantSnapshot, presented *refreshToken, a *grantAnswer) ([]byte, error) {
	aead, err := g.answerCipher(presented)
	if err != nil {
		return nil, err
	}
	dictionary := g.answerDictionary(s)
	w := recordWriter{}
	w.text(string(packText(a.access.header, dictionary)))
	w.text(string(packText(a.access.payload, dictionary)))
	w.text(string(a.access.signature))
	w.text(string(packText([]byte(a.scope), dictionary)))
	w.number(uint64(a.expiresIn / time.Second)) //nolint:gosec // not negative
	w.b = append(w.b, a.refresh.secret[:]...)
	w.b = append(w.b, a.refresh.mac[:]...)
	nonce := make([]byte, chacha20poly1305.NonceSize, chacha20poly1305.NonceSize+len(w.b)+chacha20poly1305.Overhead)
	if err := g.random(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, w.b, nil), nil
}

// openAnswer is the inverse of keepAnswer.
func (g *Grants) openAnswer(s *grantSnapshot, presented *refreshToken) (*grantAnswer, error) {
	aead, err := g.answerCipher(presented)
	if err != nil {
		return nil, err
	}
	if len(s.answer) < chacha20poly1305.NonceSize {
		return nil, errAnswer
	}
	plain, err := aead.Open(nil, s.answer[:chacha20poly1305.NonceSize], s.answer[chacha20poly1305.NonceSize:], nil)
	if err != nil {
		return nil, errAnswer
	}
	dictionary := g.answerDictionary(s)
	d := recordReader{b: plain}
	a := &grantAnswer{access: &accessToken{}, refresh: &refreshToken{grant: s.id, generation: presented.generation + 1}}
	header, ok1 := unpackText(d.bytes(), dictionary)
	payload, ok2 := unpackText(d.bytes(), dictionary)
	a.access.header, a.access.payload, a.access.signature = header, payload, d.bytes()
	scope, ok3 := unpackText(d.bytes(), dictionary)
	a.scope = string(scope)
	a.expiresIn = time.Duration(d.number(1<<32)) * time.Second //nolint:gosec // bounded
	d.fill(a.refresh.secret[:])
	d.fill(a.refresh.mac[:])
	if d.bad || len(d.b) > 0 || !ok1 || !ok2 || !ok3 {
		return nil, errAnswer
	}
	return a, nil
}

type answerAEAD interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}

// answerCipher derives the key from the whole presented token, which names the
// grant and the generation, and the issuer.
func (g *Grants) answerCipher(presented *refreshToken) (answerAEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(presented.String()), nil, "mcpauth refresh answer v1 "+g.cfg.Issuer, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}

// answerDictionary are texts that an answer repeats from elsewhere: without them
// it is a third as long, and with a hundred thousand grants in memory that
// counts. They never change in the life of a grant, and the list never changes
// in one grantFormat.
func (g *Grants) answerDictionary(s *grantSnapshot) []string {
	return []string{
		`{"alg":"`, `","kid":"`, `","typ":"at+jwt"}`,
		`{"iss":"` + jsonText(g.cfg.Issuer) + `","sub":"`,
		`","aud":"`, `","client_id":"`, `","scope":"`, `","iat":`, `,"exp":`, `,"jti":"`,
		`","` + GrantIDClaim + `":"` + s.id.String() + `"`,
		jsonText(s.clientID), jsonText(s.resource), jsonText(s.identity.Subject), jsonText(s.scopes),
	}
}

// packText replaces each text of the dictionary by one control character, of
// which compact JSON and scopes hold none.
func packText(text []byte, dictionary []string) []byte {
	for i, entry := range dictionary {
		if len(entry) > 1 {
			text = bytes.ReplaceAll(text, []byte(entry), []byte{byte(i + 1)}) //nolint:gosec // a few entries
		}
	}
	return text
}

// unpackText is the inverse of packText.
func unpackText(packed []byte, dictionary []string) ([]byte, bool) {
	text := make([]byte, 0, 4*len(packed))
	for _, c := range packed {
		switch {
		case c >= 0x20:
			text = append(text, c)
		case c == 0 || int(c) > len(dictionary):
			return nil, false
		default:
			text = append(text, dictionary[c-1]...)
		}
	}
	return text, true
}

// refreshToken is a refresh token: base64url(grant id ‖ generation ‖ 32 random
// bytes ‖ 16 bytes of MAC). The MAC is over all of it and the client's id, so
// that forgeries and other clients' tokens cost no look into the store.
type refreshToken struct {
	grant      grantID
	generation uint32
	secret     [32]byte
	mac        [16]byte
}

const refreshTokenSize = 16 + 4 + 32 + 16

func (t *refreshToken) String() string { return base64.RawURLEncoding.EncodeToString(t.bytes()) }

func (t *refreshToken) bytes() []byte {
	b := make([]byte, 0, refreshTokenSize)
	b = append(b, t.grant[:]...)
	b = binary.BigEndian.AppendUint32(b, t.generation)
	b = append(b, t.secret[:]...)
	return append(b, t.mac[:]...)
}

// signed is what the MAC is over.
func (t *refreshToken) signed(clientID string) [][]byte {
	return [][]byte{t.bytes()[:refreshTokenSize-len(t.mac)], []byte(clientID)}
}

// parseRefreshToken reads a token; nothing is verified.
func parseRefreshToken(s string) (*refreshToken, bool) {
	var b [refreshTokenSize]byte
	if !decodeExactly(b[:], s) {
		return nil, false
	}
	t := &refreshToken{generation: binary.BigEndian.Uint32(b[16:20])}
	copy(t.grant[:], b[:16])
	copy(t.secret[:], b[20:52])
	copy(t.mac[:], b[52:])
	return t, true
}

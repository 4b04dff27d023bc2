package authserver

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxBasic bounds the credentials in an Authorization header, in bytes.
const maxBasic = 16 << 10

// usesBasic reports whether the request carries Basic credentials, well-formed
// or not. Other schemes are no client authentication and are ignored: clients
// send an old Bearer token along.
func usesBasic(r *http.Request) bool {
	for _, header := range r.Header.Values("Authorization") {
		if _, ok := cutBasic(header); ok {
			return true
		}
	}
	return false
}

func cutBasic(header string) (encoded string, ok bool) {
	scheme, rest, _ := strings.Cut(header, " ")
	return strings.TrimLeft(rest, " "), strings.EqualFold(scheme, "Basic")
}

// basicCredentials reads the Basic credentials of an Authorization header
// (RFC 7617 §2, RFC 6749 §2.3.1). There may be two readings: form-decoded, as
// the RFC says, and raw, as many clients send them; the RFC's comes first.
func basicCredentials(header string) (readings []credentials, ok bool) {
	encoded, ok := cutBasic(header)
	if !ok || len(encoded) > maxBasic {
		return nil, false
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, false
	}
	// The user-id ends at the first colon; an id with a colon must be encoded.
	id, secret, found := strings.Cut(string(decoded), ":")
	if !found || id == "" {
		return nil, false
	}
	formID, errID := url.QueryUnescape(id)
	formSecret, errSecret := url.QueryUnescape(secret)
	if errID == nil && errSecret == nil {
		readings = append(readings, credentials{clientID: formID, secret: formSecret, basic: true})
	}
	if raw := (credentials{clientID: id, secret: secret, basic: true}); len(readings) == 0 || readings[0] != raw {
		readings = append(readings, raw)
	}
	for _, c := range readings {
		if c.clientID == "" || !utf8.ValidString(c.clientID) || !utf8.ValidString(c.secret) ||
			hasControl(c.clientID) || hasControl(c.secret) {
			return nil, false
		}
	}
	return readings, true
}

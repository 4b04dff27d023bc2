package proxyprovider

// ReencodeGrant decodes a record and encodes it again, for the fuzz test.
func ReencodeGrant(b []byte) ([]byte, error) {
	r, err := decodeGrant(b)
	if err != nil {
		return nil, err
	}
	return r.encode()
}

// ReencodeRefreshToken does so for a refresh token.
func ReencodeRefreshToken(s string) (string, bool) {
	t, ok := parseRefreshToken(s)
	if !ok {
		return "", false
	}
	return t.String(), true
}

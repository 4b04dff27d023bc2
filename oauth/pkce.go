package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// ValidChallenge reports whether s can be an S256 code challenge (RFC 7636
// §4.2): 43 characters of base64url without padding.
func ValidChallenge(s string) bool {
	return len(s) == 43 && unreserved(s, "-_")
}

// ValidVerifier reports whether s is a code verifier (RFC 7636 §4.1): 43 to 128
// unreserved characters.
func ValidVerifier(s string) bool {
	return len(s) >= 43 && len(s) <= 128 && unreserved(s, "-._~")
}

// unreserved reports whether s holds only letters, digits and those of others.
func unreserved(s, others string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlpha(c) && !isDigit(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

// ChallengeS256 returns the S256 code challenge of a verifier (RFC 7636 §4.2).
func ChallengeS256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// VerifyS256 reports whether the challenge is the S256 challenge of the
// verifier, both well-formed (RFC 7636 §4.6). The comparison takes the same
// time wherever the two differ.
func VerifyS256(verifier, challenge string) bool {
	if !ValidVerifier(verifier) || !ValidChallenge(challenge) {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(ChallengeS256(verifier)), []byte(challenge)) == 1
}

package authclient

import (
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Bounds of a challenge, in bytes: what is longer counts as absent. The scope's
// is that of every scope in this module.
const (
	maxChallenge      = 16 << 10
	maxChallengeScope = 4 << 10
)

// challengeOf reads the challenge of an answer, however long a hostile server
// makes it.
func challengeOf(h http.Header) oauth.ChallengeParams {
	size := 0
	for _, value := range h.Values("Www-Authenticate") {
		size += len(value)
	}
	if size > maxChallenge {
		return oauth.ChallengeParams{}
	}
	c := oauth.ExtractChallengeParams(h)
	if len(c.Scope) > maxChallengeScope {
		c.Scope = ""
	}
	return c
}

package mcpauth

import (
	"crypto/rand"
	"sync/atomic"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/seal"
)

// sessionKey returns the function that opens the key for binding MCP sessions
// to users. It is the app's, so that nodes and restarts agree; a site that needs
// no key for anything else makes do with one in memory where none can be kept.
func (c *siteConfig) sessionKey(app *App, mode *Mode) (func() (bearer.SessionKey, error), error) {
	inMemory, err := app.acquire("session key", nil, func() (any, error) {
		key := make([]byte, seal.KeySize)
		_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
		return bearer.NewSessionKey(key)
	})
	if err != nil {
		return nil, err
	}
	var opened atomic.Pointer[bearer.SessionKey]
	return func() (bearer.SessionKey, error) {
		if key := opened.Load(); key != nil {
			return *key, nil
		}
		var key bearer.SessionKey
		switch ring, err := app.keys(); {
		case err == nil:
			key = ring.Sealer(seal.PurposeMCPSession, c.issuer)
		case mode.NeedsKeys:
			return nil, err
		default:
			if opened.Load() == nil {
				c.logger.Warn("MCP sessions are bound to their users with a key in memory: they end with a restart, and other nodes refuse them; set encryption_key", "error", err)
			}
			key = inMemory.value.(bearer.SessionKey)
		}
		opened.Store(&key)
		return key, nil
	}, nil
}

package mcpauth

import (
	"errors"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// TokenCache is about what is remembered of verified tokens, so that a token
// costs a signature check, or a question to another server, only the first time.
// Tokens are remembered by their hash until they expire, or for as long as the
// verifier says; revocation, and new keys of the issuer, are seen all the same.
// It is kept over reloads.
type TokenCache struct {
	// Size bounds the memory, in bytes. Default: 64 MiB.
	Size int64 `json:"size,omitempty"`

	// Off verifies every token at every request.
	Off bool `json:"off,omitempty"`
}

func (c *TokenCache) check() error {
	switch {
	case c == nil:
		return nil
	case c.Off && c.Size != 0:
		return errors.New("token_cache: it is off and has a size; choose one")
	case c.Size < 0 || c.Size > 0 && c.Size < 1<<20:
		return errors.New("token_cache: the size must be at least 1MiB")
	}
	return nil
}

// remember puts the cache that all sites share in front of a verifier. identity
// tells which verifier it is; nil if it ends with this configuration.
func (a *App) remember(v bearer.Verifier, identity any) (bearer.Verifier, error) {
	if a.TokenCache != nil && a.TokenCache.Off {
		return bearer.VerifierFunc(v.VerifyAccessToken), nil
	}
	cacheable, ok := v.(bearer.CacheableVerifier)
	if !ok {
		return v, nil
	}
	var config bearer.TokenCacheConfig
	if a.TokenCache != nil {
		config.MaxBytes = a.TokenCache.Size
	}
	shared, err := a.acquire("token_cache", config.MaxBytes, func() (any, error) { return bearer.NewTokenCache(config) })
	if err != nil {
		return nil, err
	}
	cache := shared.value.(*bearer.TokenCache)
	if identity == nil {
		cached := bearer.NewCachedVerifier(cacheable, cache)
		a.acquired = append(a.acquired, cached.Forget)
		return cached, nil
	}
	p, err := a.acquire("cached_verifier", []any{identity, config.MaxBytes}, func() (any, error) {
		return bearer.NewCachedVerifier(cacheable, cache), nil
	})
	if err != nil {
		return nil, err
	}
	return p.value.(*bearer.CachedVerifier), nil
}

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// cacheBytes is the default of bearer.TokenCacheConfig.MaxBytes.
const cacheBytes = 64 << 20

// distinctTokens prints what the cache takes when each request has a token of
// its own, and whether tokens in use stay quick meanwhile.
func (b *bench) distinctTokens(ctx context.Context) error {
	p, err := b.child(ctx, "tokens", strconv.Itoa(b.tokens))
	if err != nil {
		return err
	}
	defer p.stop()
	var seen seenTokens
	if err := p.says(&seen); err != nil {
		return err
	}
	fmt.Printf("\n%d distinct tokens, EdDSA, and %d in use in between, token cache of %.0f MiB\n", b.tokens, manyTokens, mebibytes(cacheBytes))
	fmt.Printf("cache %.1f MiB in the heap %s; a token in use %.0f ns of CPU before, %.0f afterwards; one that is new %.1f µs\n",
		mebibytes(seen.Heap), mark(seen.Heap <= cacheBytes), seen.Before, seen.After, seen.New/1e3)
	return nil
}

// seenTokens is what the child says.
type seenTokens struct {
	// Heap is what the cache added to the live heap, in bytes.
	Heap int64
	// Before and After are the CPU time of a known token before and after the
	// flood, New that of a token at first sight, in nanoseconds.
	Before, After, New float64
}

// seeTokens is the child: the argument is how many distinct tokens come.
func seeTokens(args []string) error {
	if len(args) != 1 {
		return errors.New("tokens needs a number")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	s, err := newTokenSigner()
	if err != nil {
		return err
	}
	defer s.close()
	before := liveHeap()
	v, err := s.verifier()
	if err != nil {
		return err
	}
	inUse := make([]string, manyTokens)
	for i := range inUse {
		if inUse[i], err = s.token(i); err != nil {
			return err
		}
	}
	held := int64(0)
	for _, token := range inUse {
		held += int64(len(token))
	}
	ctx := context.Background()
	verifyAll := func() (float64, error) {
		return cpuOfEach(len(inUse), func(i int) error {
			_, err := v.VerifyAccessToken(ctx, inUse[i])
			return err
		})
	}
	var seen seenTokens
	if _, err := verifyAll(); err != nil { // the first sight
		return err
	}
	if seen.Before, err = verifyAll(); err != nil {
		return err
	}
	var fresh []float64
	const batch = 10_000
	for at := len(inUse); at < len(inUse)+n; at += batch {
		tokens := make([]string, batch)
		for i := range tokens {
			if tokens[i], err = s.token(at + i); err != nil {
				return err
			}
		}
		each, err := cpuOfEach(batch, func(i int) error {
			_, err := v.VerifyAccessToken(ctx, tokens[i])
			return err
		})
		if err != nil {
			return err
		}
		fresh = append(fresh, each)
		if _, err := verifyAll(); err != nil { // they are in use
			return err
		}
	}
	if seen.After, err = verifyAll(); err != nil {
		return err
	}
	slices.Sort(fresh)
	seen.New = fresh[len(fresh)/2]
	seen.Heap = liveHeap() - before - held
	runtime.KeepAlive(v)
	runtime.KeepAlive(inUse)
	return json.NewEncoder(os.Stdout).Encode(seen)
}

// cpuOfEach is the CPU time of this process for each call, in nanoseconds.
func cpuOfEach(n int, call func(i int) error) (float64, error) {
	start, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	for i := range n {
		if err := call(i); err != nil {
			return 0, err
		}
	}
	end, err := cpuTime(os.Getpid())
	return float64((end - start).Nanoseconds()) / float64(n), err
}

// tokenSigner is an identity provider that signs fast.
type tokenSigner struct {
	server *http.Server
	url    string
	key    ed25519.PrivateKey
}

func newTokenSigner() (*tokenSigner, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &tokenSigner{url: "http://" + l.Addr().String(), key: key}
	s.server = &http.Server{ReadHeaderTimeout: answerTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{
			"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64.RawURLEncoding.EncodeToString(public),
		}}})
	})}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *tokenSigner) close() { _ = s.server.Close() }

func (s *tokenSigner) verifier() (bearer.Verifier, error) {
	v, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: s.url, JWKSURI: s.url})
	if err != nil {
		return nil, err
	}
	cache, err := bearer.NewTokenCache(bearer.TokenCacheConfig{MaxBytes: cacheBytes})
	if err != nil {
		return nil, err
	}
	return bearer.NewCachedVerifier(v, cache), nil
}

func (s *tokenSigner) token(user int) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, tokenClaims(s.url, jwtAudience, user, time.Now()))
	token.Header["kid"] = "k"
	token.Header["typ"] = "at+jwt"
	return token.SignedString(s.key)
}

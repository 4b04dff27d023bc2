package proxyprovider_test

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func BenchmarkExchangeCode(b *testing.B) {
	w := newGrantsWorld(b)
	g := w.node()
	codes := make([]string, b.N)
	for i := range codes {
		codes[i] = w.code(g, func(n *proxyprovider.NewGrant) {
			binary.BigEndian.PutUint64(n.ID[:], uint64(i)+1<<32) //nolint:gosec // positive
			n.Identity.Subject = string(binary.BigEndian.AppendUint32([]byte("u"), uint32(i/40)))
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, code := range codes {
		if _, err := g.ExchangeCode(b.Context(), publicClient("app"), exchange(code)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExchangeRefreshToken(b *testing.B) {
	w := newGrantsWorld(b)
	g := w.node()
	tokens := w.tokens(g)
	b.ReportAllocs()
	for b.Loop() {
		tokens = w.mustRefresh(g, tokens.RefreshToken)
	}
}

func BenchmarkVerifyAccessToken(b *testing.B) {
	for _, remembered := range []bool{true, false} {
		name := "new token, cached status"
		if remembered {
			name = "cached token and status"
		}
		b.Run(name, func(b *testing.B) {
			w := newGrantsWorld(b)
			g := w.node()
			tokens := make([]*oauth.Tokens, 1, 1024)
			tokens[0] = w.tokens(g)
			if !remembered {
				for len(tokens) < cap(tokens) {
					tokens = append(tokens, w.mustRefresh(g, tokens[len(tokens)-1].RefreshToken))
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if !remembered && i%len(tokens) == 0 {
					b.StopTimer()
					g = w.node()
					if _, err := g.VerifyAccessToken(b.Context(), tokens[0].AccessToken); err != nil {
						b.Fatal(err)
					}
					i = 1
					b.StartTimer()
				}
				if _, err := g.VerifyAccessToken(b.Context(), tokens[i%len(tokens)].AccessToken); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkGrantMemory reports what a live grant with 300 bytes of upstream
// tokens takes in the memory store, its share of the index included. Run it with
// -benchtime 100000x.
func BenchmarkGrantMemory(b *testing.B) {
	w := newGrantsWorld(b)
	g := w.node()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	tokens := make([]string, b.N)
	for i := range tokens {
		n := w.newGrant(fullGrant, func(n *proxyprovider.NewGrant) {
			binary.BigEndian.PutUint64(n.ID[:], uint64(i)+1<<32)                        //nolint:gosec // positive
			n.Identity.Subject += string(binary.BigEndian.AppendUint32(nil, uint32(i))) //nolint:gosec // small
		})
		code, err := g.Create(b.Context(), n)
		if err != nil {
			b.Fatal(err)
		}
		answer, err := g.ExchangeCode(b.Context(), n.Client, exchange(code))
		if err != nil {
			b.Fatal(err)
		}
		tokens[i] = answer.RefreshToken
	}
	client := w.newGrant(fullGrant).Client
	w.clock.advance(15 * time.Minute)
	for i := range tokens {
		if _, err := g.ExchangeRefreshToken(b.Context(), client, authserver.RefreshExchange{RefreshToken: tokens[i]}); err != nil {
			b.Fatal(err)
		}
	}
	tokens = nil
	w.upstream.set(func(u *sessionUpstream) { u.good = nil })
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B/grant")
	runtime.KeepAlive(g)
}

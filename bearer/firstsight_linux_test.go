package bearer_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// threadCPU is the CPU time of this thread, which a busy machine does not change
// much.
func threadCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkFirstSight compares the first sight of a token, and the refusal of one
// with a wrong signature, with the bare signature check of the same token. The
// ratio is the median of interleaved pairs.
func BenchmarkFirstSight(b *testing.B) {
	i := newIssuer(b)
	for _, s := range []*signer{rsaSigner(), newEC("ec", elliptic.P256()), newEd25519("ed")} {
		v := newJWT(b, i, bearer.JWTConfig{}, s)
		good := longToken(i, s)
		forged := good[:len(good)-8] + "AAAAAAAA"
		for _, kind := range []struct {
			name, token string
		}{{"good", good}, {"forged", forged}} {
			b.Run(s.alg+"/"+kind.name, func(b *testing.B) {
				method, key := jwt.GetSigningMethod(s.alg), s.private.Public()
				signed, encoded, _ := cutLast(kind.token)
				raw, err := base64.RawURLEncoding.DecodeString(encoded)
				if err != nil {
					b.Fatal(err)
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				const chunk = 50
				times := func(f func() error) time.Duration {
					start := threadCPU(b)
					for range chunk {
						if err := f(); (err == nil) != (kind.name == "good") {
							b.Fatal(err)
						}
					}
					return threadCPU(b) - start
				}
				var ratios []float64
				var bare []time.Duration
				for b.Loop() {
					signature := func() error { return method.Verify(signed, raw, key) }
					before := times(signature)
					whole := times(func() error {
						_, err := v.VerifyAccessToken(b.Context(), kind.token)
						return err
					})
					mean := (before + times(signature)) / 2
					ratios = append(ratios, float64(whole)/float64(mean))
					bare = append(bare, mean/chunk)
				}
				slices.Sort(ratios)
				slices.Sort(bare)
				b.ReportMetric(ratios[len(ratios)/2], "ratio")
				b.ReportMetric(float64(bare[len(bare)/2].Nanoseconds()), "ns-CPU/signature")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func cutLast(token string) (signed, signature string, ok bool) {
	i := strings.LastIndexByte(token, '.')
	return token[:i], token[i+1:], i >= 0
}

// BenchmarkKnownTokenCPU is BenchmarkKnownToken in CPU time.
func BenchmarkKnownTokenCPU(b *testing.B) {
	i, s := newIssuer(b), newEC("ec", elliptic.P256())
	v := remembering(b, newJWT(b, i, bearer.JWTConfig{}, s), bearer.TokenCacheConfig{})
	token, ctx := longToken(i, s), b.Context()
	if _, err := v.VerifyAccessToken(ctx, token); err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, n := threadCPU(b), 0
	for b.Loop() {
		for range 1000 {
			_, _ = v.VerifyAccessToken(ctx, token)
		}
		n += 1000
	}
	b.ReportMetric(float64((threadCPU(b)-start).Nanoseconds())/float64(n), "ns-CPU/token")
	b.ReportMetric(0, "ns/op")
}

package jwks_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/jwks"
)

const (
	// RFC 8037 appendix A.2.
	ed25519Key = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	// RFC 7517 appendix A.1.
	p256Key = `"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"`
	rsaKey  = `"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"`
)

// TestParse: what is a key for signatures, and what is left out.
func TestParse(t *testing.T) {
	weak := `"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("w", 171) + `"` // 1026 bits
	for _, row := range []struct{ name, keys, want string }{
		{"each type", "{" + ed25519Key + `,"kid":"a"},{` + p256Key + `,"alg":"ES256"},{` + rsaKey + `,"use":"sig","key_ops":["verify"]}`, "a  ed25519.PublicKey,  ES256 *ecdsa.PublicKey,   *rsa.PublicKey"},
		{"for encryption", "{" + p256Key + `,"use":"enc"}`, "its use is not sig"},
		{"for signing", "{" + p256Key + `,"key_ops":["sign"]}`, "no verify"},
		{"private", "{" + ed25519Key + `,"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`, "private key"},
		{"symmetric", `{"kty":"oct","k":"c2VjcmV0"}`, "private key"},
		{"weak", "{" + weak + "}", "RSA key of 102"},
		{"even exponent", "{" + strings.Replace(rsaKey, "AQAB", "AQAA", 1) + "}", "exponent"},
		{"huge exponent", "{" + strings.Replace(rsaKey, "AQAB", "AQABAQABAQAB", 1) + "}", "exponent is too large"},
		{"not on the curve", `{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}`, "no key that verifies"},
		{"no key at all", "", "no key that verifies"},
		{"not an object", "1", "not a JSON Web Key"},
		{"the good one of two", `{"kty":"oct","k":"c2VjcmV0"},{` + ed25519Key + "}", "  ed25519.PublicKey"},
	} {
		t.Run(row.name, func(t *testing.T) {
			keys, err := jwks.Parse([]byte(`{"keys":[` + row.keys + `]}`))
			if err != nil {
				if !strings.Contains(err.Error(), row.want) {
					t.Errorf("%v, want %q", err, row.want)
				}
				return
			}
			var got []string
			for _, key := range keys {
				got = append(got, fmt.Sprintf("%s %s %T", key.ID, key.Alg, key.Public))
			}
			if diff := cmp.Diff(row.want, strings.Join(got, ", ")); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, document := range map[string]string{
		"many keys":      `{"keys":[` + strings.Repeat("{"+ed25519Key+"},", 100) + "{" + ed25519Key + "}]}",
		"two lists":      `{"keys":[],"keys":[{` + ed25519Key + `}]}`,
		"no list":        `{"keys":{}}`,
		"without a list": `{}`,
		"no object":      `[]`,
		"trailing data":  `{"keys":[{` + ed25519Key + `}]} {}`,
	} {
		if keys, err := jwks.Parse([]byte(document)); err == nil {
			t.Errorf("%s: %d keys", name, len(keys))
		}
	}
}

// FuzzParse: whatever comes out is usable and strong.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[{` + ed25519Key + `},{` + p256Key + `},{` + rsaKey + `}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := jwks.Parse(data)
		if err == nil && len(keys) == 0 {
			t.Error("an empty set is no error")
		}
		for _, key := range keys {
			switch public := key.Public.(type) {
			case ed25519.PublicKey:
				if len(public) != ed25519.PublicKeySize {
					t.Errorf("a key of %d bytes", len(public))
				}
			case *ecdsa.PublicKey:
				if _, err := public.Bytes(); err != nil {
					t.Error(err)
				}
			case *rsa.PublicKey:
				if public.N.BitLen() < 2048 || public.E < 3 || new(big.Int).SetInt64(int64(public.E)).Bit(0) == 0 {
					t.Errorf("%d bits, exponent %d", public.N.BitLen(), public.E)
				}
			default:
				t.Errorf("a key of type %T", public)
			}
		}
	})
}

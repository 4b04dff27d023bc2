package authclient_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/MicahParks/jwkset"

	"github.com/caddy-mcp/mcpauth/authclient"
)

func encodePEM(t *testing.T, kind string, key any) string {
	t.Helper()
	var der []byte
	var err error
	switch kind {
	case "RSA PRIVATE KEY":
		der = x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey))
	case "EC PRIVATE KEY":
		der, err = x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	default:
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func encodeJWK(t *testing.T, key any, change func(map[string]any)) string {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: true}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(jwk.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(members)
	}
	if data, err = json.Marshal(members); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseSigningKey(t *testing.T) {
	t.Parallel()
	rsaKey, ecKey, edKey := newKey(t, "RS256"), newKey(t, "ES256"), newKey(t, "EdDSA")
	tests := map[string]struct {
		data    string
		key     crypto.Signer
		alg, id string
	}{
		"PKCS#8 RSA":     {encodePEM(t, "PRIVATE KEY", rsaKey), rsaKey, "RS256", ""},
		"PKCS#8 EC":      {encodePEM(t, "PRIVATE KEY", ecKey), ecKey, "ES256", ""},
		"PKCS#8 Ed25519": {encodePEM(t, "PRIVATE KEY", edKey), edKey, "EdDSA", ""},
		"PKCS#1":         {encodePEM(t, "RSA PRIVATE KEY", rsaKey), rsaKey, "RS256", ""},
		"SEC 1, after its parameters and text": {
			"key of the client\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + encodePEM(t, "EC PRIVATE KEY", ecKey), ecKey, "ES256", "",
		},
		"JWK RSA, with its algorithm": {encodeJWK(t, rsaKey, func(m map[string]any) { m["alg"], m["kid"] = "PS256", "k1" }), rsaKey, "PS256", "k1"},
		"JWK EC":                      {encodeJWK(t, ecKey, nil), ecKey, "ES256", ""},
		"JWK Ed25519":                 {encodeJWK(t, edKey, nil), edKey, "EdDSA", ""},
		"JWK with unknown members":    {encodeJWK(t, ecKey, func(m map[string]any) { m["x5t"], m["note"] = "x", "y" }), ecKey, "ES256", ""},
	}
	for name, test := range tests {
		key, err := authclient.ParseSigningKey([]byte(test.data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if key.Algorithm != test.alg || key.ID != test.id {
			t.Errorf("%s: algorithm %s, id %q", name, key.Algorithm, key.ID)
		}
		if equal, ok := key.Signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !equal.Equal(test.key.Public()) {
			t.Errorf("%s: another key", name)
		}
	}
}

// TestParseSigningKeyRefuses: and says nothing of the key.
func TestParseSigningKeyRefuses(t *testing.T) {
	t.Parallel()
	rsaKey, ecKey, edKey := newKey(t, "RS256"), newKey(t, "ES256"), newKey(t, "EdDSA")
	set := func(name string, value any) func(map[string]any) {
		return func(m map[string]any) { m[name] = value }
	}
	weak := `{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}`
	tests := map[string][2]string{
		"nothing":                 {"", "there is no private key"},
		"text":                    {"secret", "there is no private key"},
		"a public key":            {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "there is no private key"},
		"an encrypted key":        {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "decrypt it first"},
		"a damaged key":           {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a private key"},
		"a JWK that is not JSON":  {`{"kty":"EC"`, "not valid JSON"},
		"a JWK with d twice":      {`{"kty":"EC","d":"a","d":"b"}`, "not valid JSON"},
		"a public JWK":            {encodeJWK(t, ecKey, func(m map[string]any) { delete(m, "d") }), "public one"},
		"a symmetric JWK":         {`{"kty":"oct","k":"c2VjcmV0"}`, "symmetric"},
		"a JWK for encryption":    {encodeJWK(t, ecKey, set("use", "enc")), "not for signatures"},
		"a JWK of another kind":   {`{"kty":"XX","d":"AAAA"}`, "not a private key of kty"},
		"EC, another d":           {encodeJWK(t, ecKey, set("d", base64.RawURLEncoding.EncodeToString(make([]byte, 31))+"AQ")), "JSON Web Key"},
		"Ed25519, another x":      {encodeJWK(t, edKey, set("x", base64.RawURLEncoding.EncodeToString(make([]byte, 32)))), "do not fit together"},
		"RSA, another d":          {encodeJWK(t, rsaKey, set("d", "AQAB")), "JSON Web Key"},
		"RSA, too short":          {weak, "JSON Web Key"},
		"an algorithm for others": {encodeJWK(t, ecKey, set("alg", "RS256")), "does not fit the key"},
		"a huge file":             {strings.Repeat("x", 70_000), "at most"},
	}
	for name, test := range tests {
		_, err := authclient.ParseSigningKey([]byte(test[0]))
		if err == nil || !strings.Contains(err.Error(), test[1]) {
			t.Errorf("%s: err = %v, want %q", name, err, test[1])
		}
		if err != nil && test[0] != "" && len(test[0]) < 10_000 && strings.Contains(err.Error(), test[0]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}

func FuzzParseSigningKey(f *testing.F) {
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}`))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}`))
	f.Add([]byte(`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB","p":"AQ","q":"AQ"}`))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := authclient.ParseSigningKey(data)
		if err == nil && (key.Signer == nil || key.Algorithm == "") {
			t.Error("a key without signer or algorithm")
		}
	})
}

// TestOpenSigningKey: processes that begin at once have the same key, which only
// its owner can read.
func TestOpenSigningKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys", "dpop.pem")
	keys := make([]authclient.SigningKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = authclient.OpenSigningKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key.Signer == nil || !key.Signer.Public().(*ecdsa.PublicKey).Equal(keys[0].Signer.Public()) {
			t.Fatal("not one key")
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := authclient.OpenSigningKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	if _, err := authclient.OpenSigningKey(filepath.Dir(path)); err == nil {
		t.Error("a folder is no key")
	}
}

package authclient

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// SigningKey is a private key that signs assertions and proofs.
type SigningKey struct {
	// Signer holds the key; it may be in a module outside this program. Its
	// public key is an RSA key of 2048 to 8192 bits, an ECDSA key on P-256,
	// P-384 or P-521, or an Ed25519 key.
	Signer crypto.Signer
	// Algorithm is that of JSON Web Signatures (RFC 7518 §3.1, RFC 8037 §3.1).
	// Default: RS256 (PS256 if asked for), ES256, ES384, ES512 or EdDSA, as the
	// key has it.
	Algorithm string
	// ID is the kid in the header; "" for none.
	ID string
}

// Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	algRS256 = "RS256"
	algPS256 = "PS256"
	algES256 = "ES256"
	algES384 = "ES384"
	algES512 = "ES512"
	algEdDSA = "EdDSA"
)

// Bounds of RSA keys, in bits: less is weak, more is a mistake that costs time.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// maxKeyFile bounds a key in PEM or JSON, in bytes.
const maxKeyFile = 64 << 10

// ParseSigningKey reads a private key: PEM (PKCS#8, PKCS#1 or SEC 1, not
// encrypted), or a JSON Web Key (RFC 7517) with its kid and alg. Errors hold
// nothing of the key.
func ParseSigningKey(data []byte) (SigningKey, error) {
	if len(data) > maxKeyFile {
		return SigningKey{}, fmt.Errorf("a private key in PEM or JSON has at most %d bytes", maxKeyFile)
	}
	var key SigningKey
	var err error
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		key, err = parsePrivateJWK(trimmed)
	} else {
		key, err = parsePEM(data)
	}
	if err != nil {
		return SigningKey{}, err
	}
	return key, key.check()
}

func parsePEM(data []byte) (SigningKey, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return SigningKey{}, errors.New("the private key is encrypted: decrypt it first, with openssl pkcs8")
		default:
			continue // such as EC PARAMETERS, or a certificate
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok || block.Headers["DEK-Info"] != "" {
			return SigningKey{}, errors.New("the PEM block is not a private key in PKCS#8, PKCS#1 or SEC 1 that signs")
		}
		return SigningKey{Signer: signer}, nil
	}
	return SigningKey{}, errors.New("there is no private key: write it as PEM, -----BEGIN PRIVATE KEY-----, or as a JSON Web Key")
}

// parsePrivateJWK reads a JSON Web Key. What jwkset says about a broken one is
// not passed on: it may quote it.
func parsePrivateJWK(data []byte) (SigningKey, error) {
	if err := strictjson.Check(data); err != nil {
		return SigningKey{}, errors.New("the JSON Web Key is not valid JSON")
	}
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(data, &jwk); err != nil {
		return SigningKey{}, errors.New("the JSON Web Key has a member of a wrong type")
	}
	switch {
	case jwk.K != "":
		return SigningKey{}, errors.New("the JSON Web Key is symmetric: with a shared secret use client_secret_basic")
	case jwk.D == "":
		return SigningKey{}, errors.New("the JSON Web Key is a public one: the private one has the member d")
	case jwk.USE != "" && jwk.USE != jwkset.UseSig:
		return SigningKey{}, errors.New("the JSON Web Key is not for signatures: its use is not sig")
	case len(jwk.E) > 8: // 6 bytes; what is longer would be cut by jwkset
		return SigningKey{}, errors.New("the exponent of the JSON Web Key is too large")
	}
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	parsed, err := jwkset.NewJWKFromMarshal(jwk, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return SigningKey{}, errors.New("the JSON Web Key is not a private key of kty RSA, EC or OKP")
	}
	signer, ok := parsed.Key().(crypto.Signer)
	if !ok {
		return SigningKey{}, errors.New("the JSON Web Key is not one that signs")
	}
	if !isWhole(signer) {
		return SigningKey{}, errors.New("the members of the JSON Web Key do not fit together")
	}
	return SigningKey{Signer: signer, Algorithm: string(jwk.ALG), ID: jwk.KID}, nil
}

// isWhole reports whether the public part of the key belongs to the private one.
func isWhole(signer crypto.Signer) bool {
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		return key.Validate() == nil
	case *ecdsa.PrivateKey:
		raw, err := key.Bytes()
		if err != nil {
			return false
		}
		derived, err := ecdsa.ParseRawPrivateKey(key.Curve, raw)
		return err == nil && derived.PublicKey.Equal(&key.PublicKey)
	case ed25519.PrivateKey:
		return len(key) == ed25519.PrivateKeySize && ed25519.NewKeyFromSeed(key.Seed()).Equal(key)
	}
	return false
}

// check completes the key, or says why it cannot be used.
func (k *SigningKey) check() error {
	if k.Signer == nil {
		return errors.New("the private key is missing")
	}
	var usual []string
	switch key := k.Signer.Public().(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("the RSA key has %d bits: make one of 2048 to 8192", bits)
		}
		usual = []string{algRS256, algPS256}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			usual = []string{algES256}
		case elliptic.P384():
			usual = []string{algES384}
		case elliptic.P521():
			usual = []string{algES512}
		}
	case ed25519.PublicKey:
		usual = []string{algEdDSA}
	}
	if len(usual) == 0 {
		return errors.New("the private key is of a kind that cannot sign here: make an ECDSA key on P-256")
	}
	if k.Algorithm == "" {
		k.Algorithm = usual[0]
	}
	if slices.Contains(usual, k.Algorithm) {
		return nil
	}
	return fmt.Errorf("the algorithm %.20q does not fit the key: write %s", k.Algorithm, usual[0])
}

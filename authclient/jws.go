package authclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
)

// sign returns the claims as a JWS in compact form (RFC 7515 §3.1). alg and, if
// the key has one, kid are added to the header.
func (k *SigningKey) sign(header, claims map[string]any) (string, error) {
	header["alg"] = k.Algorithm
	if k.ID != "" {
		header["kid"] = k.ID
	}
	input, err := encodePart(header)
	if err != nil {
		return "", err
	}
	payload, err := encodePart(claims)
	if err != nil {
		return "", err
	}
	input += "." + payload
	signature, err := k.signBytes([]byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func encodePart(v any) (string, error) {
	data, err := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(data), err
}

// signBytes signs by crypto.Signer alone, so that the key may be elsewhere.
func (k *SigningKey) signBytes(input []byte) ([]byte, error) {
	switch k.Algorithm {
	case algEdDSA:
		return k.Signer.Sign(rand.Reader, input, crypto.Hash(0))
	case algPS256:
		return k.signDigest(input, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	case algES384:
		return k.signECDSA(input, crypto.SHA384)
	case algES512:
		return k.signECDSA(input, crypto.SHA512)
	case algES256:
		return k.signECDSA(input, crypto.SHA256)
	}
	return k.signDigest(input, crypto.SHA256)
}

func (k *SigningKey) signDigest(input []byte, o crypto.SignerOpts) ([]byte, error) {
	hash := o.HashFunc().New()
	hash.Write(input)
	return k.Signer.Sign(rand.Reader, hash.Sum(nil), o)
}

// signECDSA makes R and S of the same length (RFC 7518 §3.4) of the ASN.1 that
// a crypto.Signer returns.
func (k *SigningKey) signECDSA(input []byte, hash crypto.Hash) ([]byte, error) {
	encoded, err := k.signDigest(input, hash)
	if err != nil {
		return nil, err
	}
	public, ok := k.Signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("the private key is not an ECDSA key any more")
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	var point struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(encoded, &point)
	if err != nil || len(rest) > 0 || point.R.Sign() <= 0 || point.S.Sign() <= 0 || point.R.BitLen() > size*8 || point.S.BitLen() > size*8 {
		return nil, errors.New("the private key makes no valid ECDSA signature")
	}
	signature := make([]byte, 2*size)
	point.R.FillBytes(signature[:size])
	point.S.FillBytes(signature[size:])
	return signature, nil
}

// ecJWK is the public key as a JSON Web Key (RFC 7518 §6.2.1) with its
// thumbprint (RFC 7638 §3).
func ecJWK(public *ecdsa.PublicKey) (jwk map[string]any, thumbprint string, err error) {
	if public.Curve != elliptic.P256() {
		return nil, "", errors.New("the key is not on P-256")
	}
	encoded, err := public.Bytes() // 4, x, y (SEC 1 §2.3.3)
	if err != nil {
		return nil, "", err
	}
	size := (len(encoded) - 1) / 2
	x := base64.RawURLEncoding.EncodeToString(encoded[1 : 1+size])
	y := base64.RawURLEncoding.EncodeToString(encoded[1+size:])
	hash := crypto.SHA256.New()
	hash.Write([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	thumbprint = base64.RawURLEncoding.EncodeToString(hash.Sum(nil))
	return map[string]any{"kty": "EC", "crv": "P-256", "x": x, "y": y}, thumbprint, nil
}

// Package seal hides and authenticates what this module hands to strangers and
// wants to recognise later: client ids, forms, cookies, relayed refresh tokens,
// and the values in a shared store.
//
// A Ring holds the operator's keys. The first one seals, all of them open, so
// that a key is rotated by putting a new one in front, and what an old key
// sealed is revoked by dropping it. A Sealer works for one Purpose and one
// issuer: what it sealed opens nowhere else.
//
// # Format
//
//	version (1 byte) ‖ key id (4) ‖ expiry (5) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext and tag
//
// as bytes, or as base64url without padding. The expiry is in seconds since
// 1970, big endian, 0 for never. Version, key id and expiry are readable but
// authenticated, and so are the purpose, the issuer and the caller's own
// associated data, each prefixed with its length, so that no byte can move from
// one to the next. Every value has exactly one spelling.
package seal

package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// MACSize is the length of a MAC, MinMAC the shortest part of one that is
// accepted, in bytes.
const (
	MACSize = sha256.Size
	MinMAC  = 16
)

// MAC returns an HMAC-SHA256 over the parts, each prefixed with its length,
// under the key that seals. It is bound to purpose and issuer.
func (s *Sealer) MAC(data ...[]byte) [MACSize]byte { return s.keys[0].sum(data) }

// VerifyMAC reports, in constant time, whether mac is the MAC of the parts
// under any key of the ring, or its first 16 bytes or more.
func (s *Sealer) VerifyMAC(mac []byte, data ...[]byte) bool {
	if len(mac) < MinMAC || len(mac) > MACSize {
		return false
	}
	ok := false
	for _, k := range s.keys {
		want := k.sum(data)
		if hmac.Equal(mac, want[:len(mac)]) {
			ok = true
		}
	}
	return ok
}

func (k *subkey) sum(data [][]byte) (out [MACSize]byte) {
	h := hmac.New(sha256.New, k.mac)
	for _, part := range data {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	h.Sum(out[:0])
	return out
}

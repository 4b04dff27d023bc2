package authclient

import "sync"

// maxNonces is of how many origins a nonce is kept: a client talks to an MCP
// server and its authorization server.
const maxNonces = 16

// maxNonce bounds a nonce, in bytes. Proofs repeat it in every request.
const maxNonce = 512

// nonces are the last nonces of servers, by origin. The zero value is empty.
type nonces struct {
	mu       sync.Mutex
	byOrigin map[string]string
}

func (n *nonces) get(origin string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byOrigin[origin]
}

// learn keeps the nonce, in place of any other if there are too many: who
// loses one learns it again with the next refusal.
func (n *nonces) learn(origin, nonce string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byOrigin == nil {
		n.byOrigin = make(map[string]string)
	}
	if _, known := n.byOrigin[origin]; !known && len(n.byOrigin) >= maxNonces {
		for other := range n.byOrigin {
			delete(n.byOrigin, other)
			break
		}
	}
	n.byOrigin[origin] = nonce
}

// isNonce is the NQCHAR of RFC 9449 §8.1.
func isNonce(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

package authserver

import (
	"crypto/sha256"
	"encoding/binary"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ClientHash names a client so that it can be blocked (ClientsConfig.Blocked):
// a metadata document by its URL, whatever it says, and a registered client by
// what it registered, so that registering the same again does not help. For
// pre-registered clients it has no use.
func ClientHash(c *oauth.Client) [32]byte {
	if isDocumentID(c.ClientID) {
		h := newClientHash("document")
		h.text(c.ClientID)
		return h.sum()
	}
	h := newClientHash("registration")
	h.metadata(&c.ClientMetadata)
	return h.sum()
}

// MetadataHash is over all that a user relies on who consents to the client:
// its name, redirect URIs, grant types, scope, method and keys. Remembered
// consent is for one value of it.
func MetadataHash(c *oauth.Client) [32]byte {
	h := newClientHash("metadata")
	h.metadata(&c.ClientMetadata)
	h.text(c.JWKSURI)
	h.text(string(c.JWKS))
	return h.sum()
}

// VerifiedHost returns the host that vouches for what the client says about
// itself, with its port if it has one: that of its metadata document. verified
// is false for a registered client, whose name anybody could have sent.
func VerifiedHost(c *oauth.Client) (host string, verified bool) {
	if !isDocumentID(c.ClientID) {
		return "", false
	}
	u, err := url.Parse(c.ClientID)
	if err != nil || u.Host == "" {
		return "", false
	}
	return strings.ToLower(u.Host), true
}

// clientHash collects texts and lists of them without ambiguity.
type clientHash []byte

func newClientHash(label string) clientHash {
	h := make(clientHash, 0, 512)
	h.text("mcpauth client " + label + " v1")
	return h
}

func (h *clientHash) text(s string) {
	*h = append(binary.BigEndian.AppendUint32(*h, uint32(len(s))), s...)
}

func (h *clientHash) list(values []string) {
	*h = binary.BigEndian.AppendUint32(*h, uint32(len(values)))
	for _, v := range values {
		h.text(v)
	}
}

func (h *clientHash) metadata(m *oauth.ClientMetadata) {
	h.list(m.RedirectURIs)
	h.list(slices.Sorted(slices.Values(m.GrantTypes)))
	for _, s := range []string{m.TokenEndpointAuthMethod, m.ClientName, m.ClientURI, m.Scope, m.ApplicationType} {
		h.text(s)
	}
}

func (h *clientHash) sum() [32]byte { return sha256.Sum256(*h) }

package authserver

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// sealedClient opens the id of a registered client. The policy is applied
// again: a client that has no redirect URI left is unknown.
func (s *Clients) sealedClient(ctx context.Context, clientID string) (*oauth.Client, error) {
	unknown := oauth.ErrInvalidClient.Describe("The client is unknown to this server; register it again")
	if !s.config.Dynamic || len(clientID) > maxSealedID {
		return nil, unknown
	}
	sealers, err := s.open()
	if err != nil {
		return nil, err
	}
	plaintext, err := sealers.id.Open(clientID, s.config.Now())
	if err != nil {
		return nil, unknown.Because(err)
	}
	sealed, err := decodeSealedClient(plaintext, s.packer)
	if err != nil {
		return nil, unknown.Because(err)
	}
	client := &oauth.Client{ClientMetadata: sealed.metadata(), ClientInformation: oauth.ClientInformation{ClientID: clientID}}
	if err := s.checkBlocked(ctx, client); err != nil {
		return nil, err
	}
	kept, _, err := s.config.Policy.Filter(client.RedirectURIs, client.ApplicationType)
	if err != nil {
		return nil, unknown.Because(err)
	}
	if !slices.Equal(kept, client.RedirectURIs) {
		client.RedirectURIs = kept
		// Whoever blocks the client now sees it like this.
		if err := s.checkBlocked(ctx, client); err != nil {
			return nil, err
		}
	}
	if sealed.confidential() {
		client.ClientIDIssuedAt = sealed.issued
		client.ClientSecretExpiresAt = sealed.secretExpiresAt()
		client.ClientSecret = secretText(sealers.secret.MAC([]byte(clientID)))
	}
	return client, nil
}

func secretText(mac [seal.MACSize]byte) string { return base64.RawURLEncoding.EncodeToString(mac[:]) }

// CheckSecret implements SecretChecker: the secret of a registered client may
// have been made with any key of the ring.
func (s *Clients) CheckSecret(c *oauth.Client, secret string) bool {
	if s.preregistered[c.ClientID] != nil {
		return sameSecret(secret, c.ClientSecret)
	}
	sealers, err := s.open()
	if err != nil {
		return false
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	return err == nil && len(mac) == seal.MACSize && len(secret) == base64.RawURLEncoding.EncodedLen(seal.MACSize) &&
		sealers.secret.VerifyMAC(mac, []byte(c.ClientID))
}

// registeringClients is Clients with dynamic registration.
type registeringClients struct{ *Clients }

// RegisterClient implements Registrar. The answer holds what is remembered,
// which is not all that the client sent.
func (s *registeringClients) RegisterClient(ctx context.Context, c *oauth.Client) (*oauth.Client, error) {
	sealed := newSealedClient(&c.ClientMetadata)
	now := s.config.Now()
	if sealed.confidential() {
		if _, err := io.ReadFull(s.config.Rand, sealed.nonce[:]); err != nil {
			return nil, fmt.Errorf("reading random bytes: %w", err)
		}
		sealed.issued, sealed.secretLife = now.Unix(), int64(s.config.SecretExpiry/time.Second)
	}
	if !sealed.fit(s.packer) {
		return nil, oauth.ErrInvalidClientMetadata.Describe("member redirect_uris is too long: register fewer or shorter ones")
	}
	client := &oauth.Client{ClientMetadata: sealed.metadata()}
	blocked, err := s.blocked(ctx, client)
	if err != nil {
		return nil, err
	}
	if blocked {
		return nil, oauth.ErrAccessDenied.Describe("The operator of this server has blocked the client")
	}
	sealers, err := s.open()
	if err != nil {
		return nil, err
	}
	client.ClientIDIssuedAt = now.Unix()
	plaintext := sealed.encode(s.packer)
	if !sealed.confidential() {
		client.ClientID, err = sealers.id.SealDeterministic(plaintext, time.Time{})
		return client, err
	}
	if client.ClientID, err = sealers.id.Seal(plaintext, time.Time{}); err != nil {
		return nil, err
	}
	client.ClientSecret = secretText(sealers.secret.MAC([]byte(client.ClientID)))
	client.ClientSecretExpiresAt = sealed.secretExpiresAt()
	return client, nil
}

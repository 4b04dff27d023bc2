package authserver_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

func FuzzSealedClientID(f *testing.F) {
	key := seal.GenerateKey()
	ring, err := seal.NewRing(key)
	if err != nil {
		f.Fatal(err)
	}
	sealer := ring.Sealer(seal.PurposeClientID, issuer)
	clients, err := authserver.NewClients(authserver.ClientsConfig{Issuer: issuer, Keys: keyRing(f, key), Dynamic: true})
	if err != nil {
		f.Fatal(err)
	}
	registrar := clients.Store().(authserver.Registrar)
	for _, method := range []string{"none", "client_secret_post"} {
		c, err := registrar.RegisterClient(f.Context(), &oauth.Client{ClientMetadata: oauth.ClientMetadata{
			RedirectURIs: []string{callback, "http://localhost/cb"}, TokenEndpointAuthMethod: method, ClientName: "Näme", Scope: "a b",
		}})
		if err != nil {
			f.Fatal(err)
		}
		plaintext, err := sealer.Open(c.ClientID, time.Now())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plaintext, c.ClientID)
	}
	f.Add([]byte{1, 0, 0, 0, 0, 1, 0x96}, "AQ")
	f.Add([]byte{1, 2}, "https://")
	f.Fuzz(func(t *testing.T, plaintext []byte, id string) {
		// Nobody's id but ours opens.
		if c, err := clients.GetClient(t.Context(), id); err == nil {
			if again, err := clients.GetClient(t.Context(), c.ClientID); err != nil || c.ClientID != id || again.ClientID != id {
				t.Errorf("%q opens as %q", id, c.ClientID)
			}
		}
		// Whatever our key has sealed is read as a client that the policy allows,
		// or refused.
		sealed, err := sealer.Seal(plaintext, time.Time{})
		if err != nil {
			return // longer than anything that is sealed
		}
		c, err := clients.GetClient(t.Context(), sealed)
		if err != nil {
			if !errors.Is(err, oauth.ErrInvalidClient) {
				t.Error(err)
			}
			return
		}
		for _, uri := range c.RedirectURIs {
			if err := (*oauth.RedirectPolicy)(nil).Check(uri, c.ApplicationType); err != nil {
				t.Errorf("%q: %v", uri, err)
			}
		}
		// What was read can be registered again and is the same then.
		registered, err := registrar.RegisterClient(t.Context(), c)
		if err != nil {
			if !errors.Is(err, oauth.ErrInvalidClientMetadata) {
				t.Error(err)
			}
			return
		}
		got, err := clients.GetClient(t.Context(), registered.ClientID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(registered.ClientMetadata, got.ClientMetadata); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzDocument(f *testing.F) {
	f.Add(document(f), documentURL)
	f.Add(document(f, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", keysURL), documentURL)
	f.Add(document(f, "jwks", map[string]any{"keys": []any{map[string]string{"kty": "OKP", "crv": "Ed25519", "x": "AA"}}}), documentURL)
	f.Add(`{"client_id":"https://client.example/oauth/client.json"}`, "https://a/%2e%2e/b")
	documents, err := authserver.NewDocuments(authserver.DocumentsConfig{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, id string) {
		for _, id := range []string{id, documentURL} {
			doc, err := documents.Parse(id, []byte(body))
			if err != nil {
				continue
			}
			if doc.Client.ClientID != id || doc.Client.ClientName == "" || len(doc.Client.RedirectURIs) == 0 || doc.Client.ClientSecret != "" {
				t.Errorf("%+v", doc.Client)
			}
			switch doc.Client.TokenEndpointAuthMethod {
			case "none", "private_key_jwt":
			default:
				t.Errorf("method %q", doc.Client.TokenEndpointAuthMethod)
			}
			for _, uri := range doc.Client.RedirectURIs {
				if err := (*oauth.RedirectPolicy)(nil).Check(uri, doc.Client.ApplicationType); err != nil {
					t.Errorf("%q: %v", uri, err)
				}
			}
		}
	})
}

func FuzzAssertion(f *testing.F) {
	k := newSigner(f, "k1", "EdDSA")
	s := newAssertionSite(f, k)
	s.web.put(documentURL, page{body: document(f, "token_endpoint_auth_method", "private_key_jwt", "jwks", json.RawMessage(jwks(f, k)))})
	good := k.sign(f, s.claims())
	f.Add(good)
	f.Add(k.sign(f, s.claims("aud", []string{issuer}, "exp", 1.5e9)))
	f.Add(good[:len(good)-1])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, compact string) {
		c, err := s.clients.VerifyAssertion(t.Context(), "", compact, []string{issuer})
		switch {
		case err == nil && (c.ClientID != documentURL || !strings.HasPrefix(good, compact[:strings.LastIndexByte(compact, '.')])):
			t.Errorf("%q is accepted", compact)
		case err != nil && !errors.Is(err, oauth.ErrInvalidClient) && !errors.Is(err, oauth.ErrTemporarilyUnavailable) && !errors.Is(err, oauth.ErrTooManyRequests):
			t.Error(err)
		}
	})
}

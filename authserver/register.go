package authserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Random bytes in ids and secrets. base64url makes them 32 and 43 characters,
// none of which Basic authentication would encode, and no id can begin with
// https:// and be taken for that of a client metadata document.
const (
	clientIDBytes = 24
	secretBytes   = 32
)

// serveRegister is the client registration endpoint (RFC 7591 §3).
func (s *Server) serveRegister(w http.ResponseWriter, r *http.Request) {
	client, err := s.register(w, r)
	if err != nil {
		s.fail(w, r, registerPath, "", err)
		return
	}
	writeJSON(w, http.StatusCreated, client)
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) (*oauth.Client, error) {
	if err := s.limits.countRequest(w.Header(), r, registerPath); err != nil {
		return nil, err
	}
	if err := s.checkInitialAccessToken(r); err != nil {
		return nil, err
	}
	metadata, err := s.readClientMetadata(w, r)
	if err != nil {
		return nil, err
	}
	if metadata.RedirectURIs, err = s.filterRedirectURIs(r, metadata); err != nil {
		return nil, err
	}
	if err := completeClientMetadata(metadata); err != nil {
		return nil, err
	}
	client, err := s.newClient(metadata)
	if err != nil {
		return nil, err
	}
	registered, err := s.registrar.RegisterClient(r.Context(), client)
	if err != nil {
		return nil, err
	}
	if registered == nil || registered.ClientID == "" {
		return nil, errors.New("the client store returned no client id")
	}
	return registered, nil
}

// checkInitialAccessToken lets only holders of the operator's token register,
// if there is one (RFC 7591 §3, RFC 6750 §2.1).
func (s *Server) checkInitialAccessToken(r *http.Request) error {
	want := s.config.InitialAccessToken
	if want == "" {
		return nil
	}
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return oauth.ErrInvalidToken.Describe("Registration needs an initial access token as Bearer token")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(want))
	same := subtle.ConstantTimeCompare(a[:], b[:]) == 1
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || !same {
		return oauth.ErrInvalidToken.Describe("The initial access token is not valid")
	}
	return nil
}

// readClientMetadata reads the JSON document that the client sent.
func (s *Server) readClientMetadata(w http.ResponseWriter, r *http.Request) (*oauth.ClientMetadata, error) {
	body, err := s.readBody(w, r, "application/json")
	if err != nil {
		return nil, err
	}
	if err := strictjson.Check(body); err != nil {
		return nil, oauth.ErrInvalidClientMetadata.Describe(err.Error())
	}
	var m oauth.ClientMetadata
	if err := m.UnmarshalJSON(body); err != nil {
		if !strings.HasPrefix(err.Error(), "member ") {
			err = errors.New("a JSON object is needed")
		}
		return nil, oauth.ErrInvalidClientMetadata.Describe(err.Error())
	}
	if err := checkClientMetadata(&m); err != nil {
		return nil, err
	}
	return &m, nil
}

// filterRedirectURIs drops the redirect URIs that the policy refuses, if one
// stays: clients send several, of which one is unusable here.
func (s *Server) filterRedirectURIs(r *http.Request, m *oauth.ClientMetadata) ([]string, error) {
	kept, refused, err := s.config.RedirectPolicy.Filter(m.RedirectURIs, m.ApplicationType)
	for uri, reason := range refused {
		s.config.Logger.InfoContext(r.Context(), "redirect uri refused at registration",
			"redirect_uri", uri, "reason", reason.Error(), "client_name", m.ClientName,
			"hint", "if this client is to be served, allow the URI as a redirect URI pattern or by a client set")
	}
	return kept, err
}

// newClient gives the client its credentials.
func (s *Server) newClient(m *oauth.ClientMetadata) (*oauth.Client, error) {
	client := &oauth.Client{ClientMetadata: *m}
	now := s.config.Now()
	var err error
	if !s.config.NoClientIDGeneration {
		if client.ClientID, err = s.randomString(clientIDBytes); err != nil {
			return nil, err
		}
		client.ClientIDIssuedAt = now.Unix()
	}
	if m.TokenEndpointAuthMethod == oauth.AuthMethodNone {
		return client, nil
	}
	if client.ClientSecret, err = s.randomString(secretBytes); err != nil {
		return nil, err
	}
	if s.config.ClientSecretExpiry > 0 {
		client.ClientSecretExpiresAt = now.Add(s.config.ClientSecretExpiry).Unix()
	}
	return client, nil
}

// randomString returns n random bytes as base64url.
func (s *Server) randomString(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.config.Rand, b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

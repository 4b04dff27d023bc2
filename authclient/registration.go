package authclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const whatRegistration = "registration endpoint"

// maxRejection is how much of a refusal RegistrationRejectedError keeps, in bytes.
const maxRejection = 2048

// RegisterClient registers the client (RFC 7591), the SDK's registerClient.
// scope, if it is not "", replaces that of the metadata, which are sent as they
// are: ResolveClientMetadata adds the defaults.
func RegisterClient(ctx context.Context, s AuthorizationServer, metadata oauth.ClientMetadata, scope string) (*ClientInformation, error) {
	n, done, err := s.Options.connected(s.URL)
	if err != nil {
		return nil, err
	}
	defer done()
	if scope != "" {
		metadata.Scope = scope
	}
	endpoint, err := s.registrationEndpoint(n)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(metadata)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	answer, err := n.do(whatRegistration, req)
	if err != nil {
		return nil, err
	}
	if answer.Status >= 300 && answer.Status < 400 || answer.Status >= 500 || answer.Status == http.StatusTooManyRequests {
		return nil, unavailable(whatRegistration, req, answer)
	}
	if answer.Status != http.StatusCreated && answer.Status != http.StatusOK {
		rejected := &RegistrationRejectedError{Status: answer.Status, Body: string(answer.Body[:min(len(answer.Body), maxRejection)]), Submitted: metadata}
		if refusal := oauthError(answer.Body, answer.Status); refusal != nil {
			rejected.Err = refusal
		}
		return nil, rejected
	}
	client := &ClientInformation{}
	if err := readJSON(whatRegistration, req, answer, &client.ClientInformationFull); err != nil {
		return nil, err
	}
	if client.ClientID == "" {
		return nil, &EndpointError{What: whatRegistration, URL: bare(req.URL), Status: answer.Status, Reason: "the answer has no client_id: tell its operator"}
	}
	client.Issuer = s.Issuer()
	return client, nil
}

func (s *AuthorizationServer) registrationEndpoint(n *network) (*url.URL, error) {
	fromMetadata := ""
	if s.Metadata != nil {
		if fromMetadata = s.Metadata.RegistrationEndpoint; fromMetadata == "" {
			return nil, fmt.Errorf("%w: %s does not register clients: register this one with its operator and give the client_id, or use a client metadata document if it supports them", ErrIncompatible, s.Issuer())
		}
	}
	return n.endpoint(whatRegistration, fromMetadata, s.URL, "/register")
}

// ResolveClientMetadata returns the metadata of the provider with the defaults
// of the SDK's function of that name: grant_types authorization_code and
// refresh_token for a client with a user, application_type native for loopback
// and private-use redirect URIs, else web. What is set stays.
func ResolveClientMetadata(p Provider) oauth.ClientMetadata {
	m := p.ClientMetadata()
	if m.GrantTypes == nil && p.RedirectURL() != "" {
		m.GrantTypes = []string{oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken}
	}
	if m.ApplicationType == "" {
		m.ApplicationType = applicationType(m.RedirectURIs)
	}
	return m
}

func applicationType(redirectURIs []string) string {
	for _, raw := range redirectURIs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme == "" {
			continue
		}
		if u.Scheme != "https" && u.Scheme != "http" || oauth.IsLoopbackHost(u.Hostname()) {
			return oauth.ApplicationTypeNative
		}
	}
	return oauth.ApplicationTypeWeb
}

// ValidateClientMetadataURL returns an invalid_client_metadata error unless the
// URL is "" or that of a client metadata document: https with a path.
func ValidateClientMetadataURL(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := parseURL("", raw)
	if err != nil || u.Scheme != "https" || strings.Trim(u.Path, "/") == "" || u.Fragment != "" || u.User != nil {
		return oauth.ErrInvalidClientMetadata.Describe("the URL of the client metadata document must be https with a path, such as https://client.example.com/client.json, not " + raw)
	}
	return nil
}

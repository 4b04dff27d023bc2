package idp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// metadata is what a provider publishes about itself (OpenID Connect Discovery
// §3), or what is known about one that publishes nothing.
type metadata struct {
	issuer                            string
	authorizationEndpoint             string
	tokenEndpoint, revocationEndpoint string
	userinfoEndpoint, jwksURI         string
	tokenAuthMethods                  []string
	revocationAuthMethods             []string
	signingAlgs                       []string
	scopes                            []string
	announcesIss                      bool
	dialect                           map[string]string // the provider's error codes in the words of RFC 6749
}

// errorCode translates a provider's own word.
func (m *metadata) errorCode(code string) string {
	if standard, ok := m.dialect[code]; ok {
		return standard
	}
	return code
}

// discovery loads the metadata of an OpenID provider.
type discovery struct {
	fresh[metadata]
	url      string
	accepts  func(issuer string) error
	client   *http.Client
	insecure bool
}

// newDiscovery is for the issuer; accepts judges the issuer that the document
// names. OpenID Connect Discovery §4.3: it must be the same.
func newDiscovery(c *Common, issuer string, accepts func(string) error) *discovery {
	if accepts == nil {
		accepts = func(named string) error {
			if named != issuer {
				return fmt.Errorf("the document is of issuer %.200q, but %q is configured; they must be equal byte for byte", named, issuer)
			}
			return nil
		}
	}
	d := &discovery{
		// §4.1: appended, also to an issuer with a path.
		url:     strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration",
		accepts: accepts, client: c.Client, insecure: c.Insecure,
	}
	d.fresh = fresh[metadata]{
		load: d.fetch, now: c.Now,
		logger: c.Logger.With(slog.String("document", "openid configuration"), slog.String("issuer", issuer)),
	}
	return d
}

func (d *discovery) fetch(ctx context.Context) (*metadata, error) {
	body, err := fetch(ctx, d.client, d.url)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("%s answered no metadata document: %w", d.url, err)
	}
	m := &metadata{}
	for name, to := range map[string]any{
		"issuer": &m.issuer, "authorization_endpoint": &m.authorizationEndpoint, "token_endpoint": &m.tokenEndpoint,
		"revocation_endpoint": &m.revocationEndpoint, "userinfo_endpoint": &m.userinfoEndpoint, "jwks_uri": &m.jwksURI,
		"token_endpoint_auth_methods_supported":          &m.tokenAuthMethods,
		"revocation_endpoint_auth_methods_supported":     &m.revocationAuthMethods,
		"id_token_signing_alg_values_supported":          &m.signingAlgs,
		"scopes_supported":                               &m.scopes,
		"authorization_response_iss_parameter_supported": &m.announcesIss,
	} {
		if raw, ok := members[name]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return nil, fmt.Errorf("%s answered a metadata document whose %s has the wrong type", d.url, name)
			}
		}
	}
	if err := d.accepts(m.issuer); err != nil {
		return nil, fmt.Errorf("%s: %w", d.url, err)
	}
	return m, d.check(m)
}

// check refuses a document without the endpoints that every sign-in needs, and
// one that would send us from https to http.
func (d *discovery) check(m *metadata) error {
	for name, endpoint := range map[string]struct {
		url      string
		required bool
	}{
		"authorization_endpoint": {m.authorizationEndpoint, true},
		"token_endpoint":         {m.tokenEndpoint, true},
		"jwks_uri":               {m.jwksURI, true},
		"userinfo_endpoint":      {m.userinfoEndpoint, false},
		"revocation_endpoint":    {m.revocationEndpoint, false},
	} {
		if endpoint.url == "" && !endpoint.required {
			continue
		}
		if err := oauth.CheckEndpoint(endpoint.url, d.insecure); err != nil {
			return fmt.Errorf("%s answered a metadata document whose %s cannot be used: %w", d.url, name, err)
		}
	}
	return nil
}

// fetch gets a JSON document: 200 or an error.
func fetch(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("the URL is not valid")
	}
	req.Header.Set("Accept", "application/json")
	answer, err := safehttp.Do(client, req, 0)
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", address, answer.Status)
	}
	return answer.Body, nil
}

// hostOf is the host of a URL that was checked.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host
}

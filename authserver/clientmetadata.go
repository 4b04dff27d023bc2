package authserver

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	maxListEntries = 32      // entries of an array in client metadata
	maxString      = 2 << 10 // bytes of a string in it
	maxClientName  = 256     // characters, after cleaning
	maxJWKS        = 16 << 10
)

// checkClientMetadata checks what a client says about itself (RFC 7591 §2) and
// cleans it in place. redirect_uris are left to the policy.
func checkClientMetadata(m *oauth.ClientMetadata) error {
	// Members that we do not know are ignored (RFC 7591 §2), and so is a software
	// statement, which nobody vouches for here.
	m.Extra, m.SoftwareStatement = nil, ""
	if hasControl(m.ClientName) {
		return metadataError("client_name", "must not hold control characters")
	}
	m.ClientName = cleanName(m.ClientName)
	if utf8.RuneCountInString(m.ClientName) > maxClientName {
		return metadataError("client_name", fmt.Sprintf("must not be longer than %d characters", maxClientName))
	}
	for _, list := range []struct {
		name    string
		entries []string
	}{
		{"redirect_uris", m.RedirectURIs},
		{"grant_types", m.GrantTypes},
		{"response_types", m.ResponseTypes},
		{"contacts", m.Contacts},
	} {
		if len(list.entries) > maxListEntries {
			return metadataError(list.name, fmt.Sprintf("must not have more than %d entries", maxListEntries))
		}
		for _, entry := range list.entries {
			if err := checkMetadataString(list.name, entry); err != nil {
				return err
			}
		}
	}
	for _, text := range []struct{ name, value string }{
		{"token_endpoint_auth_method", m.TokenEndpointAuthMethod},
		{"client_name", m.ClientName},
		{"scope", m.Scope},
		{"software_id", m.SoftwareID},
		{"software_version", m.SoftwareVersion},
		{"application_type", m.ApplicationType},
	} {
		if err := checkMetadataString(text.name, text.value); err != nil {
			return err
		}
	}
	// An empty URL counts as absent: clients fill their forms with them.
	for _, link := range []struct{ name, value string }{
		{"client_uri", m.ClientURI},
		{"logo_uri", m.LogoURI},
		{"tos_uri", m.TOSURI},
		{"policy_uri", m.PolicyURI},
		{"jwks_uri", m.JWKSURI},
	} {
		if err := checkMetadataString(link.name, link.value); err != nil {
			return err
		}
		if link.value != "" && !isWebURL(link.value) {
			return metadataError(link.name, "must be an http or https URL")
		}
	}
	if len(m.JWKS) > maxJWKS {
		return metadataError("jwks", fmt.Sprintf("must not be larger than %d bytes", maxJWKS))
	}
	if len(m.JWKS) > 0 && m.JWKS[0] != '{' {
		return metadataError("jwks", "must be an object")
	}
	if len(m.JWKS) > 0 && m.JWKSURI != "" {
		return metadataError("jwks", "must not be sent together with jwks_uri")
	}
	switch m.ApplicationType {
	case "", oauth.ApplicationTypeNative, oauth.ApplicationTypeWeb:
		return nil
	}
	return metadataError("application_type", "must be native or web")
}

// completeClientMetadata narrows the metadata to what this server does and
// fills in the defaults, which the client learns from the answer.
func completeClientMetadata(m *oauth.ClientMetadata) error {
	switch m.TokenEndpointAuthMethod {
	case "", oauth.AuthMethodNone, oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost:
	default:
		return metadataError("token_endpoint_auth_method", "must be one that this server supports: none, client_secret_basic or client_secret_post")
	}
	return narrowClientMetadata(m)
}

// narrowClientMetadata narrows scope, grant and response types.
func narrowClientMetadata(m *oauth.ClientMetadata) error {
	scopes, err := oauth.ParseScope(m.Scope)
	if err != nil {
		return metadataError("scope", "must be a list of scopes, separated by spaces (RFC 6749 section 3.3)")
	}
	m.Scope = oauth.JoinScope(scopes)
	// refresh_token is among the defaults because ChatGPT refuses an answer
	// without it: https://github.com/clerk/mcp-tools/issues/19
	supported := []string{oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken}
	if m.GrantTypes, err = narrow("grant_types", m.GrantTypes, supported); err != nil {
		return err
	}
	m.ResponseTypes, err = narrow("response_types", m.ResponseTypes, []string{"code"})
	return err
}

// narrow returns the values that are supported, all of them if the client named
// none. The first one supported is what this server is for and must be there.
func narrow(name string, values, supported []string) ([]string, error) {
	if len(values) == 0 {
		return supported, nil
	}
	if !slices.Contains(values, supported[0]) {
		return nil, metadataError(name, "must contain "+supported[0])
	}
	var kept []string
	for _, value := range values {
		if slices.Contains(supported, value) && !slices.Contains(kept, value) {
			kept = append(kept, value)
		}
	}
	return kept, nil
}

func checkMetadataString(name, value string) error {
	if len(value) > maxString {
		return metadataError(name, fmt.Sprintf("must not be longer than %d bytes", maxString))
	}
	if hasControl(value) {
		return metadataError(name, "must not hold control characters")
	}
	return nil
}

func metadataError(name, problem string) error {
	return oauth.ErrInvalidClientMetadata.Describe("member " + name + " " + problem)
}

// cleanName takes out of a name what could make it look like another one, or
// turn the text around it: control characters, and invisible ones such as the
// bidi overrides. The joiners stay, which some scripts and emoji need.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200c' || r == '\u200d':
			return r
		case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
			return -1
		case unicode.IsControl(r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return ' '
		}
		return r
	}, name)
	return strings.Join(strings.Fields(name), " ")
}

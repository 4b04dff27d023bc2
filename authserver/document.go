package authserver

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Document is a client ID metadata document, checked and filtered.
type Document struct {
	// Client is the client as this server treats it. Its
	// TokenEndpointAuthMethod is none or private_key_jwt. Redirect URIs that the
	// policy refuses are left out.
	Client *oauth.Client
	// Hash is MetadataHash of Client: it changes when the client says something
	// else about itself.
	Hash [32]byte
	// Methods are the methods of client authentication that the document offers:
	// token_endpoint_auth_method, then those of token_endpoint_auth_methods_supported
	// (OpenID Connect RP Metadata Choices §2).
	Methods []string

	signingAlg string      // the one algorithm of its assertions, "" for any
	keys       *clientKeys // nil: at jwks_uri, or none
}

func isHTTPS(address string) bool { return strings.HasPrefix(address, "https://") }

// parse reads the document that was fetched from the URL
// (draft-ietf-oauth-client-id-metadata-document §4). Errors are documentErrors.
func (d *Documents) parse(clientID string, body []byte) (*Document, error) {
	doc, err := d.parseDocument(clientID, body)
	if err != nil {
		d.config.Logger.Info("client metadata document refused", "url", clientID, "cause", err.Error())
		return nil, &documentError{text: err.Error()}
	}
	if len(body) > recommendedSize {
		d.config.Logger.Debug("client metadata document is larger than recommended", "url", clientID, "bytes", len(body))
	}
	return doc, nil
}

func (d *Documents) parseDocument(clientID string, body []byte) (*Document, error) {
	if err := strictjson.Check(body); err != nil {
		return nil, err
	}
	var m oauth.ClientMetadata
	if err := m.UnmarshalJSON(body); err != nil {
		if !strings.HasPrefix(err.Error(), "member ") {
			return nil, fmt.Errorf("it is not a JSON object")
		}
		return nil, err
	}
	doc := &Document{}
	if err := doc.readExtra(clientID, m); err != nil {
		return nil, err
	}
	if err := checkClientMetadata(&m); err != nil {
		return nil, plainError(err)
	}
	if m.ClientName == "" {
		return nil, fmt.Errorf("member client_name is required")
	}
	kept, refused, err := d.config.Policy.Filter(m.RedirectURIs, m.ApplicationType)
	for uri, reason := range refused {
		d.config.Logger.Info("redirect uri of a client metadata document refused", slog.String("url", clientID),
			slog.String("redirect_uri", uri), slog.String("reason", reason.Error()))
	}
	if err != nil {
		return nil, plainError(err)
	}
	m.RedirectURIs = kept
	if err := narrowClientMetadata(&m); err != nil {
		return nil, plainError(err)
	}
	if err := d.setMethod(doc, clientID, &m); err != nil {
		return nil, err
	}
	doc.Client = &oauth.Client{ClientMetadata: m, ClientInformation: oauth.ClientInformation{ClientID: clientID}}
	doc.Hash = MetadataHash(doc.Client)
	return doc, nil
}

// plainError is the description of an OAuth error, which is all that matters
// inside another one.
func plainError(err error) error {
	return fmt.Errorf("%s", oauth.AsError(err).Description)
}

// readExtra checks and reads the members that oauth.ClientMetadata does not
// name, and the methods. §4.1: nothing may rest on a shared secret, for there
// is no way to share one.
func (doc *Document) readExtra(clientID string, m oauth.ClientMetadata) error {
	text := func(name string) (string, error) {
		raw, ok := m.Extra[name]
		if !ok || string(raw) == "null" {
			return "", nil
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", fmt.Errorf("member %s must be a string", name)
		}
		return s, nil
	}
	id, err := text("client_id")
	switch {
	case err != nil:
		return err
	case id == "":
		return fmt.Errorf("member client_id is required")
	case id != clientID:
		return fmt.Errorf("member client_id is not the URL of the document, byte for byte")
	}
	for _, name := range []string{"client_secret", "client_secret_expires_at"} {
		if raw, ok := m.Extra[name]; ok && string(raw) != "null" {
			return fmt.Errorf("member %s is not allowed", name)
		}
	}
	if doc.signingAlg, err = text("token_endpoint_auth_signing_alg"); err != nil {
		return err
	}
	var offered []string
	if raw, ok := m.Extra["token_endpoint_auth_methods_supported"]; ok {
		if err := json.Unmarshal(raw, &offered); err != nil || len(offered) > maxListEntries {
			return fmt.Errorf("member token_endpoint_auth_methods_supported must be an array of at most %d strings", maxListEntries)
		}
	}
	if m.TokenEndpointAuthMethod != "" {
		offered = slices.Insert(offered, 0, m.TokenEndpointAuthMethod)
	}
	for _, method := range offered {
		if strings.HasPrefix(method, "client_secret") {
			return fmt.Errorf("a method with a shared secret is not allowed")
		}
		if !slices.Contains(doc.Methods, method) {
			doc.Methods = append(doc.Methods, method)
		}
	}
	return nil
}

// setMethod decides how the client authenticates. A document that offers none
// is used as public, because the same document serves servers that verify
// nothing else. One that names no method is public unless it has keys. What we
// cannot verify is refused, never treated as public.
func (d *Documents) setMethod(doc *Document, clientID string, m *oauth.ClientMetadata) error {
	hasKeys := len(m.JWKS) > 0 || m.JWKSURI != ""
	switch {
	case slices.Contains(doc.Methods, oauth.AuthMethodNone), len(doc.Methods) == 0 && !hasKeys:
		m.TokenEndpointAuthMethod = oauth.AuthMethodNone
	case slices.Contains(doc.Methods, oauth.AuthMethodPrivateKeyJWT), len(doc.Methods) == 0:
		m.TokenEndpointAuthMethod = oauth.AuthMethodPrivateKeyJWT
	default:
		return fmt.Errorf("it offers no method of client authentication that this server verifies: none or private_key_jwt")
	}
	err := d.setKeys(doc, clientID, m)
	if m.TokenEndpointAuthMethod == oauth.AuthMethodNone && err != nil {
		// A public client needs no keys. Without them it cannot use any.
		m.JWKS, m.JWKSURI = nil, ""
		return nil
	}
	return err
}

func (d *Documents) setKeys(doc *Document, clientID string, m *oauth.ClientMetadata) (err error) {
	switch {
	case doc.signingAlg != "" && !slices.Contains(assertionAlgorithms(), doc.signingAlg):
		return fmt.Errorf("its token_endpoint_auth_signing_alg is not one of %s", strings.Join(assertionAlgorithms(), ", "))
	case len(m.JWKS) > 0:
		doc.keys, err = parseClientKeys(m.JWKS)
		return err
	case m.JWKSURI != "":
		return d.checkKeysURL(clientID, m.JWKSURI)
	}
	return fmt.Errorf("private_key_jwt needs jwks or jwks_uri")
}

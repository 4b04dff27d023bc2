package authclient

import (
	"encoding/base64"
	"net/url"
	"slices"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// SelectClientAuthMethod returns how the client authenticates at the token
// endpoint, the SDK's function of that name: as it registered if the server
// supports that, else with its secret by basic, by post, else not at all. An
// empty list stands for a server that does not say.
func SelectClientAuthMethod(client *ClientInformation, supported []string) string {
	secret := client.ClientSecret != ""
	registered := client.TokenEndpointAuthMethod
	if usable(registered, secret) && (len(supported) == 0 || slices.Contains(supported, registered)) {
		return registered
	}
	// RFC 8414 §2: a server that does not say supports basic.
	if len(supported) == 0 {
		supported = []string{oauth.AuthMethodClientSecretBasic, oauth.AuthMethodNone}
	}
	preferred := []string{oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost, oauth.AuthMethodNone}
	for _, method := range preferred {
		if usable(method, secret) && slices.Contains(supported, method) {
			return method
		}
	}
	if secret {
		return oauth.AuthMethodClientSecretPost
	}
	return oauth.AuthMethodNone
}

// usable reports whether this package can do the method, with or without secret.
func usable(method string, secret bool) bool {
	switch method {
	case oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost:
		return secret
	case oauth.AuthMethodNone:
		return true
	}
	return false
}

// authenticate adds the client's authentication to the request.
func (r *TokenRequest) authenticate() {
	if r.Client == nil {
		return
	}
	var supported []string
	if r.Metadata != nil {
		supported = r.Metadata.TokenEndpointAuthMethodsSupported
	}
	id, secret := r.Client.ClientID, r.Client.ClientSecret
	switch SelectClientAuthMethod(r.Client, supported) {
	case oauth.AuthMethodClientSecretBasic:
		// RFC 6749 §2.3.1: form-encoded first. The SDK does not; for the usual
		// alphabets there is no difference.
		credentials := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
	case oauth.AuthMethodClientSecretPost:
		r.Form.Set("client_id", id)
		r.Form.Set("client_secret", secret)
	default:
		r.Form.Set("client_id", id)
	}
}

package authclient

import (
	"net/url"
	"strings"
)

// minSecret is the length, in bytes, below which a value is not taken for a
// secret: its letters are in every text.
const minSecret = 4

// secretsOf are what a token request bears and nobody else may see, as sent and
// as it is in a form.
func secretsOf(r *TokenRequest) (secrets []string) {
	values := []string{strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")}
	for _, name := range []string{"refresh_token", "code", "code_verifier", "client_secret", "assertion", "client_assertion", "subject_token", "actor_token", "password"} {
		values = append(values, r.Form[name]...)
	}
	if r.Client != nil {
		values = append(values, r.Client.ClientSecret)
	}
	for _, value := range values {
		if len(value) < minSecret {
			continue
		}
		secrets = append(secrets, value)
		if escaped := url.QueryEscape(value); escaped != value {
			secrets = append(secrets, escaped)
		}
	}
	return secrets
}

// redact takes the secrets out of what a server has sent.
func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}

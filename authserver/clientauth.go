package authserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// credentials are what a client presents to authenticate.
type credentials struct {
	clientID string
	secret   string // "" if none was sent
	basic    bool   // by Basic, else in the body
}

// errAuthentication is the one answer to an unknown client, a missing secret
// and a wrong one, so that it tells nothing about which ids exist.
func errAuthentication() *oauth.Error {
	return oauth.ErrInvalidClient.Describe("Client authentication failed")
}

// authenticate returns the client that sent the form (RFC 6749 §2.3).
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request, endpoint string, form params) (*oauth.Client, error) {
	if form.get("client_assertion") != "" || form.get("client_assertion_type") != "" {
		return s.authenticateAssertion(r, form)
	}
	readings, err := presented(r, form)
	if err != nil {
		return nil, err
	}
	var client *oauth.Client
	for _, c := range readings {
		client, err = s.checkCredentials(w, r, endpoint, c)
		// An error without a cause of its own means that these credentials are
		// wrong, so the other reading may be right.
		if !isAuthenticationFailure(err) {
			return client, err
		}
	}
	return nil, err
}

// presented returns the credentials in the request, more than one if they can
// be read in more than one way.
func presented(r *http.Request, form params) ([]credentials, error) {
	inBody := credentials{clientID: form.get("client_id"), secret: form.get("client_secret")}
	if !usesBasic(r) {
		if inBody.clientID == "" {
			return nil, oauth.ErrInvalidRequest.Describe("The parameter client_id is required, or HTTP Basic authentication")
		}
		return []credentials{inBody}, nil
	}
	// RFC 6749 §2.3: one method in a request. Two Authorization headers are two
	// answers to the question who this is.
	if len(r.Header.Values("Authorization")) > 1 {
		return nil, oauth.ErrInvalidRequest.Describe("There is more than one Authorization header")
	}
	if inBody.secret != "" {
		return nil, oauth.ErrInvalidRequest.Describe("The client uses two methods of authentication: send the secret by Basic or in the body, not both")
	}
	readings, ok := basicCredentials(r.Header.Get("Authorization"))
	if !ok {
		return nil, errAuthentication()
	}
	if inBody.clientID != "" {
		readings = slices.DeleteFunc(readings, func(c credentials) bool { return c.clientID != inBody.clientID })
		if len(readings) == 0 {
			return nil, oauth.ErrInvalidRequest.Describe("client_id in the body is not the one in the Authorization header")
		}
	}
	return readings, nil
}

// claimedClient is the client id that the request names, true or not; "" if
// there is none. Failures are counted by it.
func claimedClient(r *http.Request, form params) string {
	if id := form.get("client_id"); id != "" {
		return id
	}
	if readings, ok := basicCredentials(r.Header.Get("Authorization")); ok {
		return readings[0].clientID
	}
	return assertedClient(form)
}

// errSecretMismatch marks credentials that are wrong, apart from an
// invalid_client that the store returned for reasons of its own.
var errSecretMismatch = errors.New("unknown client or wrong secret")

func isAuthenticationFailure(err error) bool { return errors.Is(err, errSecretMismatch) }

// checkCredentials returns the client if the credentials are its own.
func (s *Server) checkCredentials(w http.ResponseWriter, r *http.Request, endpoint string, c credentials) (*oauth.Client, error) {
	failed := errAuthentication().Because(errSecretMismatch)
	client, err := s.tokenClient(r, c.clientID)
	switch {
	case errors.Is(err, oauth.ErrInvalidClient), err == nil && client == nil:
		// As much work as for a client that exists.
		sameSecret(c.secret, s.unknownSecret)
		return nil, failed
	case err != nil:
		return nil, err
	}
	switch secretNeeded(client, c.basic) {
	case secretNone:
		// "Basic id:" is how some libraries send a public client.
		if c.secret != "" {
			return nil, failed
		}
		return client, nil
	case secretRefused:
		return nil, failed
	case secretRequired: // checked below
	}
	succeeded := func() {}
	if s.config.HardLimitClient != nil && s.config.HardLimitClient(client) {
		if succeeded, err = s.limits.attempt(w.Header(), r, endpoint, client.ClientID); err != nil {
			return nil, err
		}
	}
	if !s.isSecretOf(client, c.secret) {
		return nil, failed
	}
	succeeded()
	// Only who knows the secret learns that it has expired.
	if client.SecretExpired(s.config.Now()) {
		return nil, oauth.ErrInvalidClient.Describe("Client secret has expired")
	}
	return client, nil
}

// tokenClient finds a client that sends no assertion.
func (s *Server) tokenClient(r *http.Request, clientID string) (*oauth.Client, error) {
	store := s.config.Provider.Clients()
	if t, ok := store.(TokenClientStore); ok {
		return t.GetTokenClient(r.Context(), clientID)
	}
	return store.GetClient(r.Context(), clientID)
}

// isSecretOf reports whether the secret is the client's.
func (s *Server) isSecretOf(client *oauth.Client, secret string) bool {
	if checker, ok := s.config.Provider.Clients().(SecretChecker); ok {
		return checker.CheckSecret(client, secret)
	}
	return sameSecret(secret, client.ClientSecret)
}

type secretNeed int

const (
	secretNone     secretNeed = iota // the client has no secret
	secretRequired                   // the secret must match
	secretRefused                    // not with this method
)

// secretNeeded holds the client to the method that it registered. One that
// registered none (RFC 7591 leaves it client_secret_basic, but many clients
// that leave it out use the body) may use either, if it has a secret.
func secretNeeded(client *oauth.Client, basic bool) secretNeed {
	method := client.TokenEndpointAuthMethod
	switch {
	case method == oauth.AuthMethodNone, method == "" && client.ClientSecret == "":
		return secretNone
	case client.ClientSecret == "":
		return secretRefused
	case method == "",
		method == oauth.AuthMethodClientSecretBasic && basic,
		method == oauth.AuthMethodClientSecretPost && !basic:
		return secretRequired
	default:
		return secretRefused
	}
}

// sameSecret compares in a time that depends on neither content nor length of
// the stored secret.
func sameSecret(sent, stored string) bool {
	a, b := sha256.Sum256([]byte(sent)), sha256.Sum256([]byte(stored))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

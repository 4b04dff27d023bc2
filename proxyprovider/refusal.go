package proxyprovider

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// tokenErrorText is what clients are told for the errors that keep their
// meaning. The upstream's own text goes to the log only.
func tokenErrorText(code string) string {
	switch code {
	case "invalid_grant":
		return "The identity provider refused the code or refresh token: it is expired, used, revoked, or meant for another request; sign in again"
	case "invalid_scope":
		return "The identity provider refused the requested scope; ask for less"
	case "invalid_target":
		return "The identity provider refused the requested resource"
	case "invalid_request":
		return "The identity provider refused the request as incomplete or malformed"
	case "unauthorized_client":
		return "The identity provider does not let this client use this grant type"
	case "unsupported_grant_type":
		return "The identity provider does not support this grant type"
	case "access_denied":
		return "The identity provider denied the request"
	}
	return ""
}

// standardCode translates the codes that some upstreams use in place of those
// of RFC 6749 §5.2.
func standardCode(code string) string {
	switch code {
	// GitHub: https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors
	case "bad_verification_code", "bad_refresh_token", "redirect_uri_mismatch":
		return "invalid_grant"
	case "incorrect_client_credentials":
		return "invalid_client"
	// Microsoft Entra, when the session needs the user again:
	// https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
	case "interaction_required", "login_required", "consent_required":
		return "invalid_grant"
	case "invalid_resource":
		return "invalid_target"
	}
	return code
}

// maxErrorCode bounds an error code that is passed on.
const maxErrorCode = 64

// clientError is the answer to the client when the upstream refuses a token or
// revocation request. What the upstream said is its cause, which the Server
// logs; what the operator has to act on is logged here as an error.
func (u *upstream) clientError(operation string, c *upstreamClient, r *refusal, sent form) error {
	cause := r.cause(operation, append(slices.Clone(sent), parameter{"client_secret", c.secret}))
	tell := func(what string) {
		u.log.Error(what, "upstream", u.identity, "client_hash", hashID(c.clientID), "error", cause)
	}
	switch code := standardCode(r.code); {
	case tokenErrorText(code) != "":
		return oauth.NewError(code, tokenErrorText(code)).WithStatus(http.StatusBadRequest).Because(cause)
	case code == "invalid_client" && c.registered:
		return oauth.ErrInvalidClient.Describe("The identity provider no longer knows this client; register it again").Because(cause)
	case code == "invalid_client" && c.presents:
		tell("the upstream identity provider refuses a client's secret; the secret configured here and the one upstream differ")
		return oauth.ErrInvalidClient.Describe("The identity provider refused the client's credentials; check its secret with the operator of this server")
	case code == "invalid_client":
		tell("the upstream identity provider refuses a configured client; check its client_id, its secret and client_auth")
		return oauth.ErrInvalidClient.Describe("The identity provider refused this client as this server's operator configured it")
	case code == "server_error", code == "temporarily_unavailable", code == "slow_down":
		return unavailable(cause)
	default:
		tell("the upstream identity provider refused a request with an error that is not known here")
		if r.status >= 500 || !oauth.ValidScope(r.code) || len(r.code) > maxErrorCode { // error has the characters of scope (RFC 6749 §5.2)
			return oauth.ErrServerError.Describe("The identity provider refused the request")
		}
		return oauth.NewError(r.code, "The identity provider refused the request").WithStatus(http.StatusBadRequest).Because(cause)
	}
}

// cause is what the operator may read of a refusal: the upstream's text without
// what we sent in confidence, which some repeat there, on one line and bounded.
func (r *refusal) cause(operation string, sent form) error {
	return fmt.Errorf("the upstream refused the %s with status %d, error %q, description %q",
		operation, r.status, redact(r.code, sent), redact(r.description, sent))
}

func redact(text string, sent form) string {
	for _, p := range sent {
		switch p.name {
		case "code", "code_verifier", "refresh_token", "token", "client_secret":
			if p.value != "" {
				text = strings.ReplaceAll(text, p.value, "(redacted)")
			}
		}
	}
	return oauth.CleanDescription(text)
}

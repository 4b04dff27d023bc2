package proxyprovider

import (
	"log/slog"
	"net/http"
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

// clientError is the answer to the client when the upstream refuses a token or
// revocation request.
func (u *upstream) clientError(operation string, c *upstreamClient, r *refusal, sent form) error {
	attrs := u.refusalAttrs(operation, c.id, r, append(sent, parameter{"client_secret", c.secret}))
	switch code := standardCode(r.code); {
	case tokenErrorText(code) != "":
		u.log.Info("the upstream identity provider refused a request", attrs...)
		return oauth.NewError(code, tokenErrorText(code)).WithStatus(http.StatusBadRequest)
	case code == "invalid_client" && c.registered:
		u.log.Info("the upstream identity provider no longer knows a client that was registered through us", attrs...)
		return oauth.ErrInvalidClient.Describe("The identity provider no longer knows this client; register it again")
	case code == "invalid_client" && c.presents:
		u.log.Error("the upstream identity provider refuses a client's secret; the secret configured here and the one upstream differ", attrs...)
		return oauth.ErrInvalidClient.Describe("The identity provider refused the client's credentials; check its secret with the operator of this server")
	case code == "invalid_client":
		u.log.Error("the upstream identity provider refuses a configured client; check its client_id, its secret and client_auth", attrs...)
		return oauth.ErrServerError.Describe("The identity provider refused this client as this server's operator configured it")
	case code == "server_error", code == "temporarily_unavailable", code == "slow_down":
		u.log.Warn("the upstream identity provider is in trouble", attrs...)
		return unavailable(nil)
	default:
		u.log.Error("the upstream identity provider refused a request with an error that is not known here", attrs...)
		return oauth.ErrServerError.Describe("The identity provider refused the request")
	}
}

// refusalAttrs is what the log tells of a refusal: the upstream's text without
// what we sent in confidence, on one line, and bounded.
func (u *upstream) refusalAttrs(operation, clientID string, r *refusal, sent form) []any {
	return []any{
		slog.String("operation", operation),
		slog.String("upstream", u.identity),
		slog.String("client", hashID(clientID)),
		slog.Int("status", r.status),
		slog.String("upstream_error", redact(r.code, sent)),
		slog.String("upstream_description", redact(r.description, sent)),
	}
}

// redact takes out of an upstream's text the codes, tokens and secrets of the
// request, which some repeat there.
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

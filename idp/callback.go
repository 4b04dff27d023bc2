package idp

import (
	"crypto/subtle"
	"net/url"
	"slices"
)

// maxCode bounds an authorization code, in bytes.
const maxCode = 4 << 10

// code checks the callback's parameters in the order of RFC 9207 §2.4 and RFC
// 6749 §4.1.2 and returns the code. issuers are the values that iss may have;
// none means that the provider's issuer is not known. announced says that the
// provider promised to send it.
func (c *caller) code(q url.Values, issuers []string, announced bool) (string, error) {
	for _, name := range []string{"iss", "error", "code"} {
		if len(q[name]) > 1 {
			return "", trouble(nil, "the callback has %s twice", name)
		}
	}
	// Before anything else in the answer is believed, errors included: it may be
	// another provider's.
	switch iss, present := q.Get("iss"), q.Has("iss"); {
	case present && len(issuers) > 0 && !slices.Contains(issuers, iss):
		return "", trouble(nil, "the callback comes from another issuer, %.200q", iss)
	case !present && announced:
		return "", trouble(nil, "the callback lacks iss, which the provider's metadata announces (RFC 9207)")
	}
	if q.Has("error") {
		return "", c.callbackError(q.Get("error"), q.Get("error_description"))
	}
	code := q.Get("code")
	switch {
	case code == "":
		return "", trouble(nil, "the callback has neither code nor error")
	case len(code) > maxCode:
		return "", trouble(nil, "the code of the callback is too large")
	}
	return code, nil
}

// callbackError sorts the error codes of an authorization response.
func (c *caller) callbackError(code, description string) error {
	cause := said(code, description)
	deny := func(code string) error {
		return &Error{Code: code, kind: ErrDenied, text: "its answer to the authorization request is an error", cause: cause}
	}
	switch code {
	case "access_denied", "login_required", "interaction_required", "consent_required", "account_selection_required":
		return deny(code)
	case "unauthorized":
		// Auth0's word for a user whom a rule refuses
		// (https://auth0.com/docs/customize/rules/raise-errors-from-rules).
		return deny("access_denied")
	case "temporarily_unavailable", "server_error":
	case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope",
		"redirect_uri_mismatch", "application_suspended":
		if c.complaints.due(code, c.Now()) {
			c.Logger.Error("the identity provider refuses our authorization request; check client_id, the scopes and the registered redirect URI",
				"code", code, "description", shorten(description, 200))
		}
	}
	return trouble(cause, "its answer to the authorization request is an error")
}

// redeem exchanges the code (RFC 6749 §4.1.3, RFC 7636 §4.5).
func (c *caller) redeem(cb Callback, code string) url.Values {
	return url.Values{"code": {code}, "redirect_uri": {cb.RedirectURI}, "code_verifier": {cb.CodeVerifier}}
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

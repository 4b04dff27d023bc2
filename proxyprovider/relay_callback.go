package proxyprovider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxUpstreamCode bounds an authorization code of the upstream, in bytes.
const maxUpstreamCode = 4 << 10

// serveCallback is the redirect URI that all clients share upstream. The answer
// goes on to the client that its user allowed, if this is the browser in which
// that was done.
//
// Nothing is stored, so a browser that keeps the cookie against our word can load
// the callback twice. It gets two codes of ours around one of the upstream's,
// which redeems that once.
func (y *relay) serveCallback(w http.ResponseWriter, r *http.Request) error {
	seals, err := y.seals.get()
	if err != nil {
		return err
	}
	query, err := callbackQuery(r)
	if err != nil {
		return err
	}
	tx, err := y.takeTransaction(w, r, seals, query)
	if err != nil {
		return err
	}
	if tx.purpose != forClient || tx.approval == notYet {
		return problem("lost", http.StatusBadRequest, errors.New("a transaction that nobody approved"))
	}
	if _, err := y.currentClient(r.Context(), &tx.request); err != nil {
		return err
	}
	upstreamCode, err := y.answer(r.Context(), query)
	if err != nil {
		return y.tellClient(w, r, &tx.request, err)
	}
	code, err := y.sealCode(tx, upstreamCode)
	if err != nil {
		return y.tellClient(w, r, &tx.request, err)
	}
	location, err := y.answerTo(&tx.request).SuccessURL(code)
	if err != nil {
		return err
	}
	return seeOther(w, location)
}

// answer returns the code of the upstream's answer, or the error for the client.
func (y *relay) answer(ctx context.Context, query url.Values) (code string, err error) {
	for _, name := range []string{"iss", "error", "code"} {
		if len(query[name]) > 1 {
			return "", errUpstreamAnswer(fmt.Errorf("the callback has %s twice", name))
		}
	}
	// RFC 9207 §2.4, before anything else in the answer is believed, errors
	// included: it may be another server's (mix-up).
	if err := y.checkIss(ctx, query); err != nil {
		return "", errUpstreamAnswer(err)
	}
	if query.Has("error") {
		return "", relayedError(query.Get("error"), query.Get("error_description"))
	}
	code = query.Get("code")
	switch {
	case code == "":
		return "", errUpstreamAnswer(errors.New("the callback has neither code nor error"))
	case len(code) > maxUpstreamCode, !isVSCHAR(code):
		return "", errUpstreamAnswer(errors.New("the callback has a code that is too long or holds a character that RFC 6749 does not allow"))
	}
	return code, nil
}

// checkIss compares iss to the upstream's issuer. Without a known issuer there
// is nothing to compare; the callback is for one upstream only.
func (y *relay) checkIss(ctx context.Context, query url.Values) error {
	d := y.proxy.upstream.discovery
	if d == nil {
		return nil
	}
	if query.Has("iss") {
		if got := query.Get("iss"); got != d.Issuer() {
			return fmt.Errorf("the callback comes from another issuer, %q", oauth.CleanDescription(got))
		}
		return nil
	}
	metadata, err := d.Metadata(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("whether the callback needs iss is not known: %w", err)
	case metadata.AuthorizationResponseIssParameterSupported:
		return errors.New("the callback lacks iss, which the upstream's metadata announce (RFC 9207); if the upstream was told to leave it out for this client, undo that")
	}
	return nil
}

func errUpstreamAnswer(cause error) error {
	return oauth.ErrServerError.Describe("The sign-in failed: the identity provider answered with something else than expected").Because(cause)
}

// relayedError sorts the error codes of an authorization response (RFC 6749
// §4.1.2.1, OpenID Connect Core §3.1.2.6, RFC 8707 §2). What the upstream said
// is for the log.
func relayedError(code, description string) error {
	cause := fmt.Errorf("the upstream answered the authorization request with error %q, description %q",
		oauth.CleanDescription(code), oauth.CleanDescription(description))
	switch {
	case isSignInCode(code):
	case code == "unauthorized":
		// Auth0's word for a user whom a rule refuses
		// (https://auth0.com/docs/customize/rules/raise-errors-from-rules).
		code = oauth.ErrAccessDenied.Code
	case code == "invalid_scope", code == "invalid_target":
		return oauth.NewError(code, tokenErrorText(code)).Because(cause)
	case code == "temporarily_unavailable", code == "server_error":
		return temporarily("The identity provider has trouble, try again", cause)
	default: // our request: it is the operator's to read
		return oauth.ErrServerError.Describe("The identity provider refused the authorization request").Because(cause)
	}
	return oauth.NewError(code, "The sign-in was refused by the user or the identity provider").Because(cause)
}

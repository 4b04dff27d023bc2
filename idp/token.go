package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxToken bounds one token, in bytes.
const maxToken = 16 << 10

// grant is the leg of the flow in which the token endpoint is asked.
type grant string

const (
	codeGrant    grant = "authorization_code"
	refreshGrant grant = "refresh_token"
)

// tokenAnswer is the answer of a token endpoint (RFC 6749 §5.1, §5.2).
type tokenAnswer struct {
	accessToken, refreshToken, idToken, scope, tokenType string
	expiresIn                                            time.Duration
	code, description                                    string // of an error
}

// token asks the token endpoint.
func (c *caller) token(ctx context.Context, g grant, form url.Values) (*tokenAnswer, error) {
	m, err := c.metadata(ctx)
	if err != nil {
		return nil, err
	}
	form.Set("grant_type", string(g))
	answer, err := c.post(ctx, "token", m.tokenEndpoint, m.tokenAuthMethods, form)
	if err != nil {
		return nil, err
	}
	t, err := parseTokenAnswer(answer)
	if err == nil {
		t.code = m.errorCode(t.code)
	}
	switch {
	case answer.Status >= 500 || answer.Status == http.StatusTooManyRequests:
		// Whatever it says: who is in trouble does not know.
		return nil, trouble(nil, "its token endpoint answered %d", answer.Status)
	case err != nil:
		return nil, trouble(err, "its token endpoint answered %d and nothing that can be read", answer.Status)
	case t.code != "": // with any status: GitHub says it with 200
		return nil, c.tokenError(g, answer.Status, t)
	case answer.Status != http.StatusOK && answer.Status != http.StatusCreated:
		return nil, trouble(nil, "its token endpoint answered %d without an error code", answer.Status)
	case t.accessToken == "":
		return nil, trouble(nil, "its token endpoint gave no access token")
	case t.tokenType != "" && !strings.EqualFold(t.tokenType, "Bearer"):
		return nil, trouble(nil, "its token endpoint gave a token of type %.40q, not Bearer", t.tokenType)
	}
	return t, nil
}

// tokenError sorts the error codes. A definite no is only what is about this
// user; what is about this server is the operator's to set right and must not
// sign people out (https://github.com/BerriAI/litellm/issues/29588).
func (c *caller) tokenError(g grant, status int, t *tokenAnswer) error {
	cause := said(t.code, t.description)
	switch t.code {
	case "invalid_grant":
		return &Error{kind: ErrDead, text: "its token endpoint refused the " + grantName(g), cause: cause}
	case "access_denied", "login_required", "interaction_required", "consent_required", "account_selection_required":
		// At refresh they mean that the user, or a policy about the user, has to
		// change something first: a definite no as well.
		kind := ErrDenied
		if g == refreshGrant {
			kind = ErrDead
		}
		return &Error{Code: t.code, kind: kind, text: "its token endpoint refused the " + grantName(g), cause: cause}
	case "invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type", "invalid_request", "redirect_uri_mismatch":
		if c.complaints.due(t.code, c.Now()) {
			c.Logger.Error("the identity provider refuses this server as its client; check client_id, client_secret, the client authentication, the scopes and the registered redirect URI",
				"code", t.code, "description", shorten(t.description, 200), "status", status)
		}
	}
	return trouble(cause, "its token endpoint answered %d", status)
}

func grantName(g grant) string {
	if g == refreshGrant {
		return "refresh token"
	}
	return "authorization code"
}

// parseTokenAnswer reads JSON, or the form encoding that GitHub and some old
// servers answer with. An error means that it is neither.
func parseTokenAnswer(a *safehttp.Answer) (*tokenAnswer, error) {
	var t *tokenAnswer
	var err error
	body := bytes.TrimLeft(a.Body, " \t\r\n")
	switch {
	case len(body) > 0 && body[0] == '{':
		t, err = parseTokenJSON(body)
	case bytes.ContainsAny(body, "<\n") || !bytes.ContainsRune(body, '='):
		return nil, errors.New("neither JSON nor a form")
	default:
		t, err = parseTokenForm(string(body))
	}
	if err != nil {
		return nil, err
	}
	for _, token := range []string{t.accessToken, t.refreshToken} {
		if len(token) > maxToken {
			return nil, errors.New("a token is too large")
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
			return nil, errors.New("a token holds characters that no token has (RFC 6749 appendix A.12)")
		}
	}
	return t, nil
}

func parseTokenJSON(body []byte) (*tokenAnswer, error) {
	var members map[string]json.RawMessage
	if err := unmarshal(body, &members); err != nil {
		return nil, err
	}
	t := &tokenAnswer{}
	for name, to := range map[string]*string{
		"access_token": &t.accessToken, "refresh_token": &t.refreshToken, "id_token": &t.idToken, "scope": &t.scope,
		"token_type": &t.tokenType, "error": &t.code, "error_description": &t.description,
	} {
		raw, ok := members[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, to); err != nil && name != "scope" && name != "error_description" {
			return nil, errors.New(name + " is not a string")
		}
	}
	// A number, or one in a string, as some send it.
	t.expiresIn = lifetime(strings.Trim(string(members["expires_in"]), `"`))
	return t, nil
}

func parseTokenForm(body string) (*tokenAnswer, error) {
	q, err := url.ParseQuery(body)
	if err != nil {
		return nil, errors.New("neither JSON nor a form")
	}
	for _, values := range q {
		if len(values) > 1 {
			return nil, errors.New("a parameter occurs twice")
		}
	}
	return &tokenAnswer{
		accessToken: q.Get("access_token"), refreshToken: q.Get("refresh_token"), idToken: q.Get("id_token"),
		scope: q.Get("scope"), tokenType: q.Get("token_type"), expiresIn: lifetime(q.Get("expires_in")),
		code: q.Get("error"), description: q.Get("error_description"),
	}, nil
}

// lifetime is a number of seconds; 0, which is "not said", if it makes no sense.
func lifetime(s string) time.Duration {
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, 10*365*86400)) * time.Second
}

// tokens are what is worth keeping. What the answer omits stays as it was:
// Google, for one, repeats no refresh token
// (https://github.com/jlowin/fastmcp/pull/2438).
func (t *tokenAnswer) tokens(old Tokens, now time.Time) *Tokens {
	kept := &Tokens{AccessToken: t.accessToken, RefreshToken: t.refreshToken, Scope: t.scope}
	if kept.RefreshToken == "" {
		kept.RefreshToken = old.RefreshToken
	}
	if kept.Scope == "" {
		kept.Scope = old.Scope
	}
	if t.expiresIn > 0 {
		kept.Expiry = now.Add(t.expiresIn)
	}
	return kept
}

// refresh redeems the refresh token (RFC 6749 §6). scopes are sent if there are
// any.
func (c *caller) refresh(ctx context.Context, t Tokens, scopes []string) (*tokenAnswer, *Tokens, error) {
	if t.RefreshToken == "" {
		return nil, nil, trouble(nil, "there is no refresh token")
	}
	form := url.Values{"refresh_token": {t.RefreshToken}}
	if len(scopes) > 0 {
		form.Set("scope", oauth.JoinScope(scopes))
	}
	answer, err := c.token(ctx, refreshGrant, form)
	if err != nil {
		return nil, nil, err
	}
	return answer, answer.tokens(t, c.Now()), nil
}

// revoke ends the refresh token, or the access token if there is none, at the
// endpoint of RFC 7009.
func (c *caller) revoke(ctx context.Context, t Tokens) error {
	m, err := c.metadata(ctx)
	if err != nil {
		return err
	}
	form := url.Values{"token": {t.RefreshToken}, "token_type_hint": {"refresh_token"}}
	if t.RefreshToken == "" {
		form = url.Values{"token": {t.AccessToken}, "token_type_hint": {"access_token"}}
	}
	if m.revocationEndpoint == "" || form.Get("token") == "" {
		return nil
	}
	methods := m.revocationAuthMethods
	if len(methods) == 0 {
		methods = m.tokenAuthMethods
	}
	answer, err := c.post(ctx, "revocation", m.revocationEndpoint, methods, form)
	if err != nil {
		return err
	}
	if answer.Status == http.StatusOK || answer.Status == http.StatusNoContent {
		return nil
	}
	t2, err := parseTokenAnswer(answer)
	if err != nil {
		t2 = &tokenAnswer{}
	}
	if t2.code == "invalid_token" || t2.code == "invalid_grant" { // Google's word for one that is gone
		return nil
	}
	return trouble(said(t2.code, t2.description), "its revocation endpoint answered %d", answer.Status)
}

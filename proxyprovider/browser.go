package proxyprovider

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	maxBrowserForm  = 64 << 10 // bytes of a form's body
	maxBrowserQuery = 16 << 10 // bytes of the callback's query
)

// browserHandler is an endpoint that people visit. What it cannot answer it
// returns, having written nothing: a *notice becomes its page, anything else the
// page for trouble.
type browserHandler func(w http.ResponseWriter, r *http.Request) error

// browserEndpoint is what all of them have in common. There is no CORS here
// (OAuth 2.1 §3.1).
func (b *browserFlow) browserEndpoint(serve browserHandler, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Method == http.MethodHead && slices.Contains(methods, http.MethodGet):
			// Link checkers and previews: nothing is used up.
			w.WriteHeader(http.StatusNoContent)
			return
		case strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch"), r.Header.Get("Purpose") == "prefetch":
			// Refused, so that the browser asks again when its user does come.
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case !slices.Contains(methods, r.Method):
			h.Set("Allow", strings.Join(methods, ", "))
			b.refuse(w, r, problem("nothing", http.StatusMethodNotAllowed, nil))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r = r.WithContext(ctx)
		if err := serve(w, r); err != nil {
			b.refuse(w, r, err)
		}
	})
}

// notice is the end of a login on a page of ours, because there is no client
// that is proven to be the one to tell, or nothing to tell it.
type notice struct {
	// key is the name of the page's texts in the message catalogues.
	key    string
	status int
	// connections tells that it was about the page of connected apps.
	connections bool
	cause       error
}

func problem(key string, status int, cause error) *notice {
	return &notice{key: key, status: status, cause: cause}
}

// Error is for the operator's log.
func (n *notice) Error() string {
	if n.cause == nil {
		return n.key
	}
	return n.key + ": " + n.cause.Error()
}

func (n *notice) Unwrap() error { return n.cause }

// asNotice makes a page of every error.
func asNotice(err error) *notice {
	var n *notice
	var e *oauth.Error
	switch {
	case errors.As(err, &n):
		return n
	case errors.As(err, &e) && e.HTTPStatus() == http.StatusServiceUnavailable,
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem("trouble", http.StatusServiceUnavailable, err)
	}
	return problem("trouble", http.StatusInternalServerError, err)
}

// refuse answers with a page about err, or JSON for callers that want no HTML.
// It is the only writer of the broker's own errors.
func (b *browserFlow) refuse(w http.ResponseWriter, r *http.Request, err error) {
	n := asNotice(err)
	b.logNotice(r, n)
	e := n.oauthError()
	h := w.Header()
	h.Add("Vary", "Accept, Accept-Language")
	if n.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	if !pages.Wanted(r) {
		body, err := json.Marshal(e)
		if err != nil {
			body = []byte(`{"error":"server_error"}`)
		}
		h.Set("Content-Type", "application/json")
		w.WriteHeader(n.status)
		_, _ = w.Write(append(body, '\n'))
		return
	}
	l := pages.Speak(r, "")
	advice := "restart.advice"
	switch {
	case n.key == "client.gone" || n.key == "trouble" || n.key == "denied":
		advice = n.key + ".advice"
	case n.connections:
		advice = "connections.advice"
	}
	b.site.WriteProblem(w, r, n.status, l, pages.Problem{
		Title:   l.Text(n.key + ".title"),
		Message: l.Text(n.key + ".message"),
		Advice:  l.Text(advice),
		Code:    e.Code,
	})
}

// oauthError is the notice for programs.
func (n *notice) oauthError() *oauth.Error {
	switch {
	case n.status == http.StatusServiceUnavailable:
		return oauth.ErrTemporarilyUnavailable
	case n.status >= http.StatusInternalServerError:
		return oauth.ErrServerError
	case n.key == "client.gone":
		return oauth.ErrInvalidClient
	case n.key == "denied":
		return oauth.ErrAccessDenied
	}
	return oauth.ErrInvalidRequest.Describe("The sign-in cannot go on: start again from the app")
}

// logNotice says what only the operator may know.
func (b *browserFlow) logNotice(r *http.Request, n *notice) {
	attrs := []any{"endpoint", r.URL.Path, "reason", n.key, "remote_ip", b.cfg.ClientIP(r)}
	if n.cause != nil {
		attrs = append(attrs, "cause", n.cause.Error())
	}
	switch {
	case n.status == http.StatusServiceUnavailable:
		b.cfg.Logger.Warn("a login ended on a page", attrs...)
	case n.status >= http.StatusInternalServerError:
		b.cfg.Logger.Error("a login ended on a page", attrs...)
	default:
		b.cfg.Logger.Info("a login ended on a page", attrs...)
	}
}

// seeOther redirects with a 303, so that a form's body goes nowhere (RFC 9700
// §4.12).
func seeOther(w http.ResponseWriter, location string) error {
	if location == "" || strings.ContainsFunc(location, unicode.IsControl) {
		return errors.New("a location that no header can carry")
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// readBrowserForm reads a form that our own page sent.
func (b *browserFlow) readBrowserForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if err := b.checkSameOrigin(r); err != nil {
		return nil, err
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return nil, problem("tampered", http.StatusBadRequest, errors.New("the body is no form"))
	}
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(requestTime)) == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBrowserForm))
	if err != nil {
		return nil, problem("tampered", http.StatusBadRequest, err)
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, problem("tampered", http.StatusBadRequest, errors.New("the form is malformed"))
	}
	for _, v := range values {
		if len(v) != 1 {
			return nil, problem("tampered", http.StatusBadRequest, errors.New("the form has a field twice"))
		}
	}
	return values, nil
}

// checkSameOrigin refuses a POST that another website's page makes. Sec-Fetch-Site
// tells it best. Browsers that do not send it send Origin, which is null for our
// own forms, because our pages have Referrer-Policy: no-referrer (Fetch, "append
// a request Origin header"). So this comes on top of the token in the form, which
// is bound to the browser, and does not stand in for it.
func (b *browserFlow) checkSameOrigin(r *http.Request) error {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	switch {
	case site != "" && site != "same-origin",
		len(r.Header.Values("Origin")) > 1,
		origin != "" && origin != "null" && !strings.EqualFold(origin, b.origin):
		return problem("foreign", http.StatusForbidden, errors.New("a form was sent from another origin"))
	}
	return nil
}

// browserID names a browser. It is not secret from its user, and only proves
// that a form comes back from where it was shown.
type browserID [16]byte

// browser returns the id of the browser, a new one if it has none.
func (b *browserFlow) browser(w http.ResponseWriter, r *http.Request) (browserID, error) {
	if id, ok := b.knownBrowser(r); ok {
		return id, nil
	}
	var id browserID
	if _, err := io.ReadFull(b.cfg.Rand, id[:]); err != nil {
		return id, err
	}
	b.jar.set(w, b.jar.browser, base64.RawURLEncoding.EncodeToString(id[:]), 0, http.SameSiteLaxMode)
	return id, nil
}

func (b *browserFlow) knownBrowser(r *http.Request) (id browserID, ok bool) {
	ok = decodeExactly(id[:], cookie(r, b.jar.browser))
	return id, ok
}

// sealForm returns the hidden field of a form. It is good until its login is too
// old.
func (b *browserFlow) sealForm(w http.ResponseWriter, r *http.Request, seals *brokerSeals, kind, account string, tx *transaction) (string, error) {
	id, err := b.browser(w, r)
	if err != nil {
		return "", err
	}
	return seals.form.Seal((&browserForm{browser: id, account: account, tx: tx}).encode(), b.cfg.Now().Add(loginTime), kind)
}

// openForm is the inverse of sealForm, in the same browser only.
func (b *browserFlow) openForm(r *http.Request, seals *brokerSeals, kind, sealed string) (*browserForm, error) {
	plaintext, err := seals.form.Open(sealed, b.cfg.Now(), kind)
	switch {
	case errors.Is(err, seal.ErrExpired):
		return nil, problem("expired", http.StatusBadRequest, err)
	case err != nil:
		return nil, problem("tampered", http.StatusBadRequest, err)
	}
	f, err := decodeBrowserForm(plaintext)
	if err != nil {
		return nil, problem("tampered", http.StatusBadRequest, err)
	}
	id, ok := b.knownBrowser(r)
	if !ok || subtle.ConstantTimeCompare(id[:], f.browser[:]) != 1 {
		return nil, problem("cookies", http.StatusBadRequest, errors.New("the form was shown in another browser"))
	}
	return f, nil
}

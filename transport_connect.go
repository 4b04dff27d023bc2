package mcpauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// connectPath is below the site's endpoint prefix.
	connectPath = "/connect/"
	// connectTime is how long a user has at the remote authorization server.
	connectTime = 10 * time.Minute
	// browserIDSize is the length of the cookie's value, in characters.
	browserIDSize = 52
)

// connectPage is the page on which a user of the site gives this Caddy a grant at
// a remote server. Who the user is comes from a sign-in at the site, never from
// the link, so that nobody can have somebody else connect an account for him.
//
// The way back is bound three times: to the browser by a cookie, to the request
// by its state, of which several may be under way in one browser, and to the user
// who is signed in then. The sign-in's cookie does not come along from another
// site, so the browser takes one step more, from our page to our page.
type connectPage struct {
	t    *Transport
	r    *RemoteServer
	site *site
	// url is that of the page, and callback the redirect URI.
	url, callback string
	path          string
	config        []byte
	cookie        string
	secure        bool
	logger        *zap.Logger
}

// newConnectPage adds the page to the endpoints of the site.
func newConnectPage(t *Transport, r *RemoteServer, s *site) (*connectPage, error) {
	if s.signedIn == nil {
		return nil, fmt.Errorf("user: people do not sign in at %s", s.issuer)
	}
	sum := sha256.Sum256([]byte(r.Resource))
	id := hex.EncodeToString(sum[:6])
	base, err := url.Parse(oauth.JoinURL(s.base, s.prefix+connectPath+id))
	if err != nil {
		return nil, err
	}
	p := &connectPage{
		t: t, r: r, site: s, url: base.String(), callback: base.String() + "/callback", path: base.Path,
		secure: base.Scheme == "https", logger: t.logger,
	}
	// On loopback many servers share one host and its cookies.
	where := sha256.Sum256([]byte(p.url))
	p.cookie = "mcp_r_" + hex.EncodeToString(where[:6])
	if p.secure { // __Host- keeps other hosts of the domain from setting it
		p.cookie = "__Host-" + p.cookie
	}
	config, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// A site with several addresses has its handlers several times.
	if known := s.connects[p.path]; known != nil && bytes.Equal(known.config, config) {
		return known, nil
	}
	p.config = config
	for path, handler := range map[string]http.Handler{
		p.path: s.signedIn(p.begin), p.path + "/callback": http.HandlerFunc(p.arrive), p.path + "/finish": s.signedIn(p.finish),
	} {
		if s.extra[path] != nil {
			return nil, fmt.Errorf("user: another proxy behind %s has the users' grants at %s with other settings; make them equal", s.issuer, r.Resource)
		}
		s.extra[path] = handler
		s.secretive[path] = true
	}
	if s.connects == nil {
		s.connects = make(map[string]*connectPage)
	}
	s.connects[p.path] = p
	others := s.stripCookies
	s.stripCookies = func(r *http.Request) {
		if others != nil {
			others(r)
		}
		removeCookie(r, p.cookie)
	}
	return p, nil
}

// pendingConnect is what is kept of a login until the user comes back.
type pendingConnect struct {
	Subject   string                        `json:"subject"`
	Verifier  string                        `json:"verifier"`
	Client    *authclient.ClientInformation `json:"client,omitempty"`
	Discovery *authclient.DiscoveryState    `json:"discovery"`
}

// begin sends the user to the remote authorization server.
func (p *connectPage) begin(w http.ResponseWriter, r *http.Request, subject string) {
	login := &connectLogin{Store: authclient.NewMemoryStore(), clients: newGrantStore(p.t.grants(p.r), "client")}
	result, err := p.auth(r.Context(), login, nil)
	if err == nil && result.Status != authclient.Redirect {
		err = errors.New("the authorization server did not ask for the user")
	}
	browser := p.browser(r)
	if browser == "" {
		browser = rand.Text() + rand.Text()
	}
	if err == nil {
		pending := pendingConnect{Subject: subject, Client: p.registered(result)}
		err = p.keep(r.Context(), browser, result.AuthorizationURL.Query().Get("state"), pending, login)
	}
	if err != nil {
		p.fail(w, err)
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // secure unless the site is http
		Name: p.cookie, Value: browser, Path: "/", MaxAge: int(connectTime / time.Second),
		Secure: p.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	w.Header().Set("Location", result.AuthorizationURL.String())
	w.WriteHeader(http.StatusSeeOther)
}

// keep stores a login that has been begun.
func (p *connectPage) keep(ctx context.Context, browser, state string, pending pendingConnect, login authclient.Store) (err error) {
	if pending.Verifier, err = login.CodeVerifier(ctx); err != nil {
		return err
	}
	if pending.Discovery, err = login.DiscoveryState(ctx); err != nil {
		return err
	}
	data, err := json.Marshal(pending)
	if err != nil {
		return err
	}
	opened, err := p.t.grants(p.r)()
	if err != nil {
		return err
	}
	return opened.Put(ctx, pendingKey(browser, state), data, connectTime)
}

// arrive receives the user, whose browser has the cookie of begin, and leads on
// to the page that knows who is signed in.
func (p *connectPage) arrive(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		p.write(w, http.StatusMethodNotAllowed, "This page is where a sign-in comes back to.")
		return
	}
	callback, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.unknown(w)
		return
	}
	opened, err := p.t.grants(p.r)()
	if err == nil {
		_, err = opened.Get(r.Context(), pendingKey(p.browser(r), callback.Get("state")))
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		p.unknown(w)
		return
	case err != nil:
		p.fail(w, err)
		return
	}
	next := html.EscapeString(p.url + "/finish?" + callback.Encode())
	h := p.headers(w)
	h.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=`+next+
		`"><title>Connect your account</title><p><a href="`+next+"\">Continue</a></p></html>\n")
}

// finish redeems the code for the user who is signed in, if it is the one who
// began in this browser.
func (p *connectPage) finish(w http.ResponseWriter, r *http.Request, subject string) {
	callback, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.unknown(w)
		return
	}
	pending, err := p.take(r, callback.Get("state"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		p.unknown(w)
		return
	case err != nil:
		p.fail(w, err)
		return
	case pending.Subject != subject:
		p.write(w, http.StatusForbidden, "You are signed in as somebody else than the one who began to connect an account. Begin again: "+p.url)
		return
	}
	if err := p.connect(r.Context(), pending, callback); err != nil {
		p.fail(w, err)
		return
	}
	p.write(w, http.StatusOK, "Your account at "+hostOf(p.r.Resource)+" is connected. You can close this window and go back to your application.")
}

// take returns the login of this browser with the state, once.
func (p *connectPage) take(r *http.Request, state string) (*pendingConnect, error) {
	opened, err := p.t.grants(p.r)()
	if err != nil {
		return nil, err
	}
	data, err := opened.Take(r.Context(), pendingKey(p.browser(r), state))
	if err != nil {
		return nil, err
	}
	pending := new(pendingConnect)
	if err := json.Unmarshal(data, pending); err != nil {
		return nil, fmt.Errorf("the stored login is damaged: %w", err)
	}
	return pending, nil
}

// connect ends a login, and puts the new grant in place of the user's old one.
func (p *connectPage) connect(ctx context.Context, pending *pendingConnect, callback url.Values) error {
	login := authclient.NewMemoryStore()
	if pending.Client != nil {
		if err := login.SaveClientInformation(ctx, pending.Client); err != nil {
			return err
		}
	}
	if err := errors.Join(login.SaveCodeVerifier(ctx, pending.Verifier), login.SaveDiscoveryState(ctx, pending.Discovery)); err != nil {
		return err
	}
	user := userStore(p.t.grants(p.r), pending.Subject)
	unlock, err := user.Lock(ctx) // a request may be renewing the old grant
	if err != nil {
		return err
	}
	defer unlock()
	result, err := p.auth(ctx, login, callback)
	if clientRefused(err) && pending.Client != nil {
		return errors.Join(err, user.clients.forgetClient(ctx, pending.Client.ClientID))
	}
	if err != nil {
		return err
	}
	if result.Status != authclient.Authorized {
		return errors.New("the sign-in is not finished")
	}
	found, err := login.DiscoveryState(ctx)
	if err != nil {
		return err
	}
	return user.change(ctx, func(r *remoteRecord) { r.Client, r.Tokens, r.Discovery = p.registered(result), result.Tokens, found })
}

// registered is the client of the result if it is not that of the configuration,
// which need not be stored.
func (p *connectPage) registered(result authclient.Result) *authclient.ClientInformation {
	if p.r.client() != nil {
		return nil
	}
	return result.Client
}

// auth takes the steps of authorization with what is kept of this login.
func (p *connectPage) auth(ctx context.Context, login authclient.Store, callback url.Values) (authclient.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	web, err := authclient.NewWeb(login, authclient.WebOptions{
		RedirectURL: p.callback,
		Metadata:    oauth.ClientMetadata{ClientName: "Caddy at " + hostOf(p.site.base), Scope: oauth.JoinScope(p.r.Scopes)},
		Client:      p.r.client(),
	})
	if err != nil {
		return authclient.Result{}, err
	}
	o := p.t.options(p.r)
	o.Callback = callback
	o.Scope = oauth.JoinScope(p.r.Scopes)
	o.ForceReauthorization = callback == nil
	return authclient.Auth(ctx, web, o)
}

// browser is the value of this browser's cookie, "" if there is none.
func (p *connectPage) browser(r *http.Request) string {
	if found := r.CookiesNamed(p.cookie); len(found) == 1 && len(found[0].Value) == browserIDSize {
		return found[0].Value
	}
	return ""
}

// pendingKey is where a login lies. Only its own browser can name it, and only
// with its own state.
func pendingKey(browser, state string) string { return remoteKey("pending", browser, state) }

// fail tells the user that it did not work, and the operator why.
func (p *connectPage) fail(w http.ResponseWriter, err error) {
	var refusal *oauth.Error
	if errors.As(err, &refusal) && refusal.Code == oauth.ErrAccessDenied.Code {
		p.write(w, http.StatusForbidden, "You did not connect your account. Begin again if you want to: "+p.url)
		return
	}
	p.logger.Error("a user could not connect an account", zap.String("resource", p.r.Resource), zap.Error(err))
	p.write(w, http.StatusBadGateway, "Your account at "+hostOf(p.r.Resource)+" could not be connected. The operator of this server finds the reason in the log. Try again later: "+p.url)
}

// unknown answers a way back that this browser has not begun, or used before.
func (p *connectPage) unknown(w http.ResponseWriter) {
	p.write(w, http.StatusBadRequest, "This browser has not begun to connect an account, or took longer than 10 minutes. Begin again: "+p.url)
}

// write answers the browser with plain text.
func (p *connectPage) write(w http.ResponseWriter, status int, text string) {
	p.headers(w).Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// headers are those of every page.
func (p *connectPage) headers(w http.ResponseWriter) http.Header {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the URL may hold a code
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
	return h
}

// removeCookie takes a cookie out of a request that is passed on. Others stay
// byte for byte.
func removeCookie(r *http.Request, name string) {
	if len(r.CookiesNamed(name)) == 0 {
		return
	}
	var kept []string
	for _, header := range r.Header["Cookie"] {
		var rest []string
		for pair := range strings.SplitSeq(header, ";") {
			if found, _, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.TrimSpace(found) != name {
				rest = append(rest, pair)
			}
		}
		if joined := strings.TrimSpace(strings.Join(rest, ";")); joined != "" {
			kept = append(kept, joined)
		}
	}
	r.Header.Del("Cookie")
	if len(kept) > 0 {
		r.Header["Cookie"] = kept
	}
}

// connectLogin is the store of one login: its own, but for the client, which all
// users share.
type connectLogin struct {
	authclient.Store
	clients *grantStore
}

// ClientInformation implements authclient.Store.
func (l *connectLogin) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	return l.clients.ClientInformation(ctx, issuer)
}

// SaveClientInformation implements authclient.Store.
func (l *connectLogin) SaveClientInformation(ctx context.Context, c *authclient.ClientInformation) error {
	return l.clients.SaveClientInformation(ctx, c)
}

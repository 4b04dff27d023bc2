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
	"io"
	"net/http"
	"net/url"
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
)

// connectPage is the page on which a user of the site gives this Caddy a grant at
// a remote server. Who the user is comes from a sign-in at the site, never from
// the link, so that nobody can have somebody else connect an account for him.
//
// The way back is bound to the browser, by a cookie that leads to the user, and
// to the request, by the state that Auth compares.
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
		cookie: "mcp_r_" + id, secure: base.Scheme == "https", logger: t.logger,
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
		p.path: s.signedIn(p.begin), p.path + "/callback": http.HandlerFunc(p.finish),
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
	return p, nil
}

// begin sends the user to the remote authorization server.
func (p *connectPage) begin(w http.ResponseWriter, r *http.Request, subject string) {
	result, err := p.auth(r.Context(), subject, nil)
	if err != nil {
		p.fail(w, err)
		return
	}
	if result.Status != authclient.Redirect {
		p.fail(w, errors.New("the authorization server did not ask for the user"))
		return
	}
	browser := rand.Text() + rand.Text()
	opened, err := p.t.grants(p.r)()
	if err == nil {
		err = opened.Put(r.Context(), pendingKey(browser), []byte(subject), connectTime)
	}
	if err != nil {
		p.fail(w, err)
		return
	}
	p.setCookie(w, browser, connectTime)
	w.Header().Set("Location", result.AuthorizationURL.String())
	w.WriteHeader(http.StatusSeeOther)
}

// finish receives the user, whose browser has the cookie of begin.
func (p *connectPage) finish(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		p.write(w, http.StatusMethodNotAllowed, "This page is where a sign-in comes back to.")
		return
	}
	callback, err := url.ParseQuery(r.URL.RawQuery)
	subject, errSubject := p.subject(r)
	p.setCookie(w, "", -1)
	switch {
	case errors.Is(errSubject, store.ErrNotFound) || err != nil:
		p.write(w, http.StatusBadRequest, "This browser has not begun to connect an account, or took longer than 10 minutes. Begin again: "+p.url)
		return
	case errSubject != nil:
		p.fail(w, errSubject)
		return
	}
	result, err := p.auth(r.Context(), subject, callback)
	if err == nil && result.Status != authclient.Authorized {
		err = errors.New("the sign-in is not finished")
	}
	if err != nil {
		p.fail(w, err)
		return
	}
	p.write(w, http.StatusOK, "Your account at "+hostOf(p.r.Resource)+" is connected. You can close this window and go back to your application.")
}

// auth takes the steps of authorization with the user's part of the store.
func (p *connectPage) auth(ctx context.Context, subject string, callback url.Values) (authclient.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	web, err := authclient.NewWeb(userStore(p.t.grants(p.r), subject), authclient.WebOptions{
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

// subject returns the user who began in this browser. It works once.
func (p *connectPage) subject(r *http.Request) (string, error) {
	found := r.CookiesNamed(p.cookie)
	if len(found) != 1 || found[0].Value == "" || len(found[0].Value) > 128 {
		return "", store.ErrNotFound
	}
	opened, err := p.t.grants(p.r)()
	if err != nil {
		return "", err
	}
	subject, err := opened.Take(r.Context(), pendingKey(found[0].Value))
	return string(subject), err
}

func pendingKey(browser string) string { return remoteKey("pending", browser) }

func (p *connectPage) setCookie(w http.ResponseWriter, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: p.cookie, Value: value, Path: p.path, MaxAge: int(life / time.Second),
		Secure: p.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

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

// write answers the browser with plain text.
func (p *connectPage) write(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the URL may hold a code
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// userStore is the part of the store of one user. The client that is registered
// at the authorization server is the same for all.
func userStore(open func() (store.Store, error), subject string) authclient.Store {
	return &sharedClient{newGrantStore(open, remoteKey("user", subject)), newGrantStore(open, "client")}
}

// sharedClient is a grant whose client others use too. It keeps the client that
// it began with, for its tokens are bound to that.
type sharedClient struct {
	*grantStore
	clients *grantStore
}

// ClientInformation implements authclient.Store.
func (s *sharedClient) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	c, err := s.grantStore.ClientInformation(ctx, issuer)
	if err != nil || c != nil {
		return c, err
	}
	if c, err = s.clients.ClientInformation(ctx, issuer); err != nil || c == nil {
		return nil, err
	}
	return c, s.grantStore.SaveClientInformation(ctx, c)
}

// SaveClientInformation implements authclient.Store.
func (s *sharedClient) SaveClientInformation(ctx context.Context, c *authclient.ClientInformation) error {
	if err := s.clients.SaveClientInformation(ctx, c); err != nil {
		return err
	}
	return s.grantStore.SaveClientInformation(ctx, c)
}

// InvalidateCredentials implements authclient.Store. A client that the server has
// forgotten is forgotten for all.
func (s *sharedClient) InvalidateCredentials(ctx context.Context, scope authclient.CredentialScope, issuer string) error {
	if scope == authclient.CredentialsAll || scope == authclient.CredentialsClient {
		if err := s.clients.InvalidateCredentials(ctx, authclient.CredentialsClient, issuer); err != nil {
			return err
		}
	}
	return s.grantStore.InvalidateCredentials(ctx, scope, issuer)
}

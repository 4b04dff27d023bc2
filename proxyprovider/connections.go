package proxyprovider

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/internal/pages"
)

// sessionTime is how long a sign-in at the page of connected apps lasts.
const sessionTime = 15 * time.Minute

// serveConnections is the page on which users see which clients have access, and
// end it. It has a login and a session of its own, which are good for nothing
// else.
func (b *Broker) serveConnections(w http.ResponseWriter, r *http.Request) error {
	seals, err := b.seals.get()
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		return b.changeConnections(w, r, seals)
	}
	if subject, ok := b.session(r, seals); ok {
		return b.showConnections(w, r, seals, subject)
	}
	return b.askConnectionsLogin(w, r, seals)
}

// askConnectionsLogin shows the way to sign in. Nobody is sent away to an
// upstream who has not clicked.
func (b *Broker) askConnectionsLogin(w http.ResponseWriter, r *http.Request, seals *brokerSeals) error {
	tx := &transaction{purpose: forConnections}
	if b.cfg.Accounts != nil {
		return b.signIn(w, r, seals, tx)
	}
	token, err := b.sealForm(w, r, seals, connectionsForm, "", tx)
	if err != nil {
		return err
	}
	b.site.WriteConnections(w, r, pages.Speak(r, ""), pages.Connections{
		Action: b.path(connectionsPath), Token: token, SignIn: true, Provider: b.provider,
	})
	return nil
}

// showConnections lists what the user's grants are.
func (b *Broker) showConnections(w http.ResponseWriter, r *http.Request, seals *brokerSeals, subject string) error {
	grants, err := b.ListBySubject(r.Context(), subject)
	if err != nil {
		return connectionsTrouble(err)
	}
	token, err := b.sealForm(w, r, seals, connectionsForm, subject, &transaction{purpose: forConnections})
	if err != nil {
		return err
	}
	l := pages.Speak(r, "")
	page := pages.Connections{Action: b.path(connectionsPath), Token: token}
	switch r.URL.Query().Get("done") {
	case "one":
		page.Done = l.Text("connections.done.one")
	case "all":
		page.Done = l.Text("connections.done.all")
	}
	for _, g := range grants {
		host := shownRedirect(g.RedirectURI).Host
		if isMetadataDocument(g.ClientID) {
			host = shownHost(g.ClientID)
		}
		page.Grants = append(page.Grants, pages.Connection{
			ID: g.ID, Client: pages.Clean(g.ClientName, maxShownName), Host: host, Resource: b.resourceName(g.Resource),
			Scopes: g.Scopes, Created: g.CreatedAt, Used: g.LastUsed,
		})
	}
	b.site.WriteConnections(w, r, l, page)
	return nil
}

// changeConnections does what the user clicked.
func (b *Broker) changeConnections(w http.ResponseWriter, r *http.Request, seals *brokerSeals) error {
	values, err := b.readBrowserForm(w, r)
	if err != nil {
		return forConnectionsPage(err)
	}
	form, err := b.openForm(r, seals, connectionsForm, values.Get("token"))
	if err != nil {
		return forConnectionsPage(err)
	}
	action := values.Get("action")
	if action == "sign-in" && b.cfg.Upstream != nil {
		if err := b.signIn(w, r, seals, form.tx); err != nil {
			return connectionsTrouble(err)
		}
		return nil
	}
	subject, ok := b.session(r, seals)
	if !ok { // it ended while the page was open
		return seeOther(w, b.path(connectionsPath))
	}
	if subtle.ConstantTimeCompare([]byte(subject), []byte(form.account)) != 1 {
		return forConnectionsPage(problem("tampered", http.StatusBadRequest, errors.New("a form of another user's page")))
	}
	to := b.path(connectionsPath)
	switch grant := values.Get("revoke"); {
	case grant != "":
		// One that is gone already is what the user wants.
		if err := b.RevokeGrant(r.Context(), subject, grant); err != nil && !errors.Is(err, ErrGrantNotFound) {
			return connectionsTrouble(err)
		}
		to += "?done=one"
	case action == "revoke-all":
		if err := b.RevokeAll(r.Context(), subject); err != nil {
			return connectionsTrouble(err)
		}
		to += "?done=all"
	case action == "sign-out":
		b.jar.clear(w, b.jar.session)
	}
	return seeOther(w, to)
}

// beginSession ends a login for the page. Its cookie holds the user and nothing
// else, and no other website's request carries it.
func (b *Broker) beginSession(w http.ResponseWriter, r *http.Request, seals *brokerSeals, who *idp.Identity) error {
	sealed, err := seals.session.Seal([]byte(SubjectKey(who.Issuer, who.Subject)), b.cfg.Now().Add(sessionTime), connectionsForm)
	if err != nil {
		return err
	}
	b.jar.set(w, b.jar.session, sealed, sessionTime, http.SameSiteStrictMode)
	b.site.WriteContinue(w, r, pages.Speak(r, ""), b.afterSignIn(w, r, seals))
	return nil
}

// session returns the user who is signed in at the page.
func (b *Broker) session(r *http.Request, seals *brokerSeals) (subject string, ok bool) {
	plaintext, err := seals.session.Open(cookie(r, b.jar.session), b.cfg.Now(), connectionsForm)
	return string(plaintext), err == nil && len(plaintext) > 0
}

// forConnectionsPage gives a notice the advice of this page.
func forConnectionsPage(err error) error {
	n := *asNotice(err)
	n.connections = true
	return &n
}

// connectionsTrouble is an error of the store or of the upstream.
func connectionsTrouble(err error) error { return forConnectionsPage(err) }

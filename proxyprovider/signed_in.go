package proxyprovider

import (
	"net/http"
	"strings"
)

// nextPurpose separates the path in the cookie from what else is sealed.
const nextPurpose = "next"

// SignedIn returns a handler for a page of this site that is for one user: fn is
// given the key of the user whom the browser is signed in as, see SubjectKey. Who
// is not signed in is asked to do that first, and comes back to the page: its own
// path, without a query.
//
// It is the sign-in of the page of connected apps. It lasts 15 minutes, and no
// other website's request has it, so that a link from elsewhere leads through
// the sign-in again.
func (b *Broker) SignedIn(fn func(w http.ResponseWriter, r *http.Request, subject string)) http.Handler {
	return b.browserEndpoint(func(w http.ResponseWriter, r *http.Request) error {
		seals, err := b.seals.get()
		if err != nil {
			return err
		}
		if subject, ok := b.session(r, seals); ok {
			fn(w, r, subject)
			return nil
		}
		sealed, err := seals.session.Seal([]byte(r.URL.EscapedPath()), b.cfg.Now().Add(loginTime), nextPurpose)
		if err != nil {
			return err
		}
		b.jar.set(w, b.jar.next, sealed, loginTime, http.SameSiteLaxMode)
		return b.askConnectionsLogin(w, r, seals)
	}, http.MethodGet)
}

// afterSignIn is where a sign-in leads: to the page that asked for it, else to
// the connected apps.
func (b *Broker) afterSignIn(w http.ResponseWriter, r *http.Request, seals *brokerSeals) string {
	sealed := cookie(r, b.jar.next)
	if sealed == "" {
		return b.path(connectionsPath)
	}
	b.jar.clear(w, b.jar.next)
	path, err := seals.session.Open(sealed, b.cfg.Now(), nextPurpose)
	if err != nil || !strings.HasPrefix(string(path), b.path("/")) {
		return b.path(connectionsPath)
	}
	return string(path)
}

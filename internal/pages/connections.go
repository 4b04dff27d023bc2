package pages

import (
	"net/http"
	"slices"
	"time"
)

// Connections is the page on which users see which apps have access.
type Connections struct {
	// Action is where the form goes, Token proves that it is our own.
	Action, Token string
	// SignIn asks to sign in with Provider first.
	SignIn   bool
	Provider string
	// Done says what was just done, "" if nothing.
	Done   string
	Grants []Connection
}

// Connection is an app with access. What the app says about itself must have
// gone through Clean.
type Connection struct {
	ID, Client, Host, Resource string
	Scopes                     []string
	Created, Used              time.Time
}

// WriteConnections answers with the page.
func (s *Site) WriteConnections(w http.ResponseWriter, r *http.Request, l *Language, c Connections) {
	c.Grants = slices.Clone(c.Grants)
	for i := range c.Grants {
		if c.Grants[i].Client == "" {
			c.Grants[i].Client = l.Text("client.unnamed")
		}
	}
	s.write(w, r, http.StatusOK, "connections.html", page{Lang: l, Title: l.Text("connections.title"), Content: c})
}

// WriteContinue answers with a page that goes on to the path at once. A redirect
// would not do after a sign-in elsewhere: the browser would count it as that
// other site's and keep back cookies that are SameSite=Strict.
func (s *Site) WriteContinue(w http.ResponseWriter, r *http.Request, l *Language, path string) {
	s.write(w, r, http.StatusOK, "continue.html", page{Lang: l, Title: l.Text("continue.title"), Next: path})
}

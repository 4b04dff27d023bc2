package pages

import (
	"net/http"
	"slices"
)

// Consent is the page that asks whether an app may have access. All that the
// app says about itself must have gone through Clean.
type Consent struct {
	// Action is where the form goes, Request the sealed request that it carries.
	Action, Request string
	Client          ConsentClient
	Resource        ConsentResource
	Redirect        ConsentRedirect
	Scopes          []ConsentScope
	// Provider is who signs people in, "" for local accounts.
	Provider string
	// User is set if the question comes after the sign-in.
	User string
	// RememberDays is for how long the answer is remembered, "" if it is not.
	RememberDays string
	// Connections is the address of the page of connected apps.
	Connections string
}

// ConsentClient is the app. If it is neither preregistered nor published as a
// metadata document, nobody vouches for its name.
type ConsentClient struct {
	Name, Host              string
	Preregistered, Document bool
	// Unnamed is set by WriteConsent for an app without a Name.
	Unnamed bool
}

// ConsentResource is what the app wants to use.
type ConsentResource struct{ Name, URL string }

// ConsentRedirect is where the answer goes. Device tells that it stays on this
// device, where any program may be the one that gets it; Foreign that it goes
// elsewhere than to the host that vouches for the app.
type ConsentRedirect struct {
	Host, URI       string
	Device, Foreign bool
}

// ConsentScope is one right.
type ConsentScope struct{ Name, Description string }

// WriteConsent answers with the page.
func (s *Site) WriteConsent(w http.ResponseWriter, r *http.Request, l *Language, c Consent) {
	if c.Client.Name == "" {
		c.Client.Name, c.Client.Unnamed = l.Text("client.unnamed"), true
	}
	c.Scopes = slices.Clone(c.Scopes)
	for i := range c.Scopes {
		if scope := &c.Scopes[i]; scope.Description == "" {
			scope.Description = l.texts["scope."+scope.Name]
		}
	}
	s.write(w, r, http.StatusOK, "consent.html", page{Lang: l, Title: l.Text("consent.title"), Content: c})
}

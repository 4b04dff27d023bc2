package pages

import "net/http"

// Login is the form for a user name and a password.
type Login struct {
	// Action is where the form goes, Request the sealed sign-in that it carries.
	Action, Request string
	// Client is the app that is to be connected, "" for the page of connected
	// apps.
	Client string
	// Username is what was typed before.
	Username string
	// Problem says why the last attempt failed, "" if there was none.
	Problem string
}

// WriteLogin answers with the page.
func (s *Site) WriteLogin(w http.ResponseWriter, r *http.Request, status int, l *Language, p Login) {
	s.write(w, r, status, "login.html", page{Lang: l, Title: l.Text("login.title"), Content: p})
}

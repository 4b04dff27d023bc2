package authserver

import (
	"errors"
	"net/http"

	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// writePage answers a browser with a page about e, any other caller with JSON.
func writePage(w http.ResponseWriter, r *http.Request, e *oauth.Error) {
	w.Header().Add("Vary", "Accept")
	if !pages.Wanted(r) {
		writeError(w, e)
		return
	}
	setRetryAfter(w.Header(), e)
	pages.WriteProblem(w, r, e.HTTPStatus(), problemOf(e))
}

// problemOf says what went wrong to somebody who wanted to sign in and knows
// nothing of OAuth. The code and description are for whom they ask.
func problemOf(e *oauth.Error) pages.Problem {
	p := pages.Problem{
		Title:       "This sign-in cannot go on",
		Message:     "The app that sent you here made a request that this server cannot accept.",
		Advice:      "Go back to the app and try again. If that does not help, show the maker of the app the lines below.",
		Code:        e.Code,
		Description: oauth.CleanDescription(e.Description),
	}
	switch {
	case errors.Is(e, oauth.ErrInvalidClient):
		p.Title = "This app is not known here"
		p.Message = "The app that sent you here is not registered with this server, or no longer."
		p.Advice = "In the app, remove this server and add it again: then the app registers anew."
	case errors.Is(e, oauth.ErrTooManyRequests):
		p.Title = "Too many requests"
		p.Message = "Too many sign-ins were started from your network in a short time."
		p.Advice = "Wait a few minutes, then try again from the app."
	case e.HTTPStatus() >= http.StatusInternalServerError:
		p.Title = "Something went wrong on this server"
		p.Message = "This is no fault of yours or of the app."
		p.Advice = "Try again in a moment. If it happens again, tell the operator of this server."
	}
	return p
}

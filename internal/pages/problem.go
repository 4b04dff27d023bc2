package pages

import "net/http"

// Problem is a page that says what went wrong and what to do about it.
type Problem struct {
	Title   string
	Message string
	Advice  string
	// Code and Description are the OAuth error, for whom the user asks for help.
	Code        string
	Description string
}

// WriteProblem answers with the page.
func WriteProblem(w http.ResponseWriter, r *http.Request, status int, p Problem) {
	write(w, r, status, "problem.html", p.Title, p)
}

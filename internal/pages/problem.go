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

// WriteProblem answers with the page, in English and without a brand.
func WriteProblem(w http.ResponseWriter, r *http.Request, status int, p Problem) {
	plain := &Site{style: style}
	plain.WriteProblem(w, r, status, languages[fallback], p)
}

// WriteProblem answers with the page.
func (s *Site) WriteProblem(w http.ResponseWriter, r *http.Request, status int, l *Language, p Problem) {
	s.write(w, r, status, "problem.html", page{Lang: l, Title: p.Title, Content: p})
}

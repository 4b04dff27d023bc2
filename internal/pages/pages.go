// Package pages renders the HTML pages that people see while they sign in.
//
// Every page is self-contained: no script, no image, no request to anywhere.
// Templates escape all data for its context.
package pages

import (
	"bytes"
	"crypto/rand"
	"embed"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

//go:embed *.html style.css messages/*.json
var files embed.FS

// templates are parsed at start, so that a broken one cannot ship, and only
// read after that.
var templates = template.Must(template.ParseFS(files, "*.html"))

// style goes into every page. It is our own file and holds no data, hence safe.
var style = func() template.CSS {
	css, err := files.ReadFile("style.css")
	if err != nil {
		panic(err)
	}
	return template.CSS(css) //nolint:gosec // our own file
}()

// page is what the layout needs beside the content.
type page struct {
	Lang    *Language
	Title   string
	Content any
	// Next is where a browser goes by itself, "" if it stays.
	Next string

	Brand Brand
	Nonce string
	Style template.CSS
}

// Wanted reports whether the caller asks for HTML. Browsers name text/html;
// programs that take anything (*/*) get JSON.
func Wanted(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			mediaType, params, err := mime.ParseMediaType(part)
			if err != nil || mediaType != "text/html" && mediaType != "application/xhtml+xml" {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err != nil || q > 0 {
				return true
			}
		}
	}
	return false
}

// write answers with the named template.
func (s *Site) write(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	p.Brand, p.Style, p.Nonce = s.brand, s.style, rand.Text()
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name, p); err != nil {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	setHeaders(w.Header(), p.Nonce)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes())
	}
}

// setHeaders locks the page down. There is no form-action: Chromium applies it
// to every redirect that follows a form, which breaks federated logins. And there
// is no Cross-Origin-Opener-Policy: web clients that open the sign-in in a popup
// wait for their own callback page to speak to its opener
// (https://github.com/modelcontextprotocol/use-mcp), which that header cuts off.
func setHeaders(h http.Header, nonce string) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'nonce-"+nonce+"'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

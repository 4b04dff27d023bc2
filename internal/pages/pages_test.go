package pages_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/internal/pages"
)

func TestWanted(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": true,
		"TEXT/HTML":                  true,
		"application/json,text/html": true,
		"application/xhtml+xml":      true,
		"":                           false,
		"*/*":                        false,
		"text/*":                     false,
		"application/json":           false,
		"text/html;q=0":              false,
		"text/html-x":                false,
		"application/json, ;;;,":     false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if got := pages.Wanted(r); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

func writeProblem(method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	pages.WriteProblem(w, httptest.NewRequest(method, "/", nil), http.StatusBadRequest, pages.Problem{
		Title: "A <b>title</b>", Message: "A & message", Advice: `"advice"`, Code: "code", Description: "</code><script>alert(1)</script>",
	})
	return w
}

func TestProblemEscapesEverything(t *testing.T) {
	w := writeProblem("GET")
	body := w.Body.String()
	for _, want := range []string{"<h1>A &lt;b&gt;title&lt;/b&gt;</h1>", "A &amp; message", "&#34;advice&#34;", "&lt;script&gt;"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s:\n%s", want, body)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "<b>") {
		t.Errorf("not escaped:\n%s", body)
	}
}

// The page may load nothing, be framed by nobody, and be kept by no cache.
func TestProblemHeaders(t *testing.T) {
	w := writeProblem("GET")
	csp := w.Header().Get("Content-Security-Policy")
	m := regexp.MustCompile(`^default-src 'none'; style-src 'nonce-([A-Z2-7]{26})'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'$`).FindStringSubmatch(csp)
	if m == nil {
		t.Fatalf("CSP %q", csp)
	}
	if !strings.Contains(w.Body.String(), `<style nonce="`+m[1]+`">`) {
		t.Error("the style does not carry the nonce")
	}
	if writeProblem("GET").Header().Get("Content-Security-Policy") == csp {
		t.Error("the same nonce twice")
	}
	for name, want := range map[string]string{
		"Content-Type":           "text/html; charset=utf-8",
		"X-Frame-Options":        "DENY",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
		"Cache-Control":          "no-store",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if w.Code != http.StatusBadRequest {
		t.Errorf("status %d", w.Code)
	}
}

// The page is readable on a phone and in the dark.
func TestProblemAdapts(t *testing.T) {
	body := writeProblem("GET").Body.String()
	for _, want := range []string{`name="viewport"`, "prefers-color-scheme: dark", `<html lang="en">`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestProblemHeadHasNoBody(t *testing.T) {
	if w := writeProblem("HEAD"); w.Body.Len() != 0 || w.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
}

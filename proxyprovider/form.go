package proxyprovider

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

// form is a list of parameters in the order in which they are sent.
type form []parameter

type parameter struct{ name, value string }

// add appends a parameter.
func (f *form) add(name, value string) { *f = append(*f, parameter{name, value}) }

// addSet appends a parameter unless its value is empty.
func (f *form) addSet(name, value string) {
	if value != "" {
		f.add(name, value)
	}
}

func (f form) has(name string) bool {
	for _, p := range f {
		if p.name == name {
			return true
		}
	}
	return false
}

func (f form) encode() string {
	var b strings.Builder
	for i, p := range f {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(p.value))
	}
	return b.String()
}

// post sends the form to an endpoint as the client c. The credentials stand
// where the SDK puts them: client_id after the first parameter, the secret
// after the code or token that is being sent.
func (u *upstream) post(ctx context.Context, name endpoint, to string, c *upstreamClient, f form) (*safehttp.Answer, error) {
	body := f[:1:1]
	if c.method != authBasic {
		body.add("client_id", c.id)
	}
	rest := f[1:]
	if name == tokenEndpoint { // code or refresh_token stands before the secret
		body = append(body, rest[0])
		rest = rest[1:]
	}
	if c.method == authPost {
		body.add("client_secret", c.secret)
	}
	body = append(body, rest...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(body.encode()))
	if err != nil {
		return nil, unavailable(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.method == authBasic {
		// RFC 6749 §2.3.1: both are form-encoded before they are joined.
		req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret))
	}
	return u.do(ctx, name, req)
}

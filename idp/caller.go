package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// caller speaks with a provider as its OAuth client.
type caller struct {
	Common
	// fixed is where the endpoints are; nil if discovery knows.
	fixed     *metadata
	discovery *discovery

	complaints complaints
}

func (c *caller) metadata(ctx context.Context) (*metadata, error) {
	if c.fixed != nil {
		return c.fixed, nil
	}
	m, err := c.discovery.get(ctx)
	if err != nil {
		return nil, trouble(err, "its metadata cannot be loaded")
	}
	return m, nil
}

// do sends a request and reads the whole answer. A 404 or 410 asks for fresh
// metadata: the endpoint may have moved.
func (c *caller) do(ctx context.Context, what string, req *http.Request) (*safehttp.Answer, error) {
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	answer, err := safehttp.Do(c.Client, req, 0)
	if err != nil {
		return nil, trouble(err, "no answer from its %s endpoint", what)
	}
	if c.discovery != nil && (answer.Status == http.StatusNotFound || answer.Status == http.StatusGone) {
		_, _ = c.discovery.renew(ctx) // throttled; this request has failed either way
	}
	return answer, nil
}

// post sends a form as the authenticated client (RFC 6749 §2.3.1).
func (c *caller) post(ctx context.Context, what, address string, methods []string, form url.Values) (*safehttp.Answer, error) {
	if address == "" {
		return nil, trouble(nil, "its metadata names no %s endpoint", what)
	}
	basic := false
	switch auth := c.clientAuth(methods); auth {
	case "basic":
		basic = true
	case "post":
		form.Set("client_id", c.ClientID)
		form.Set("client_secret", c.ClientSecret)
	default:
		form.Set("client_id", c.ClientID)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, trouble(nil, "the URL of its %s endpoint is not valid", what)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic {
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret))
	}
	return c.do(ctx, what, req)
}

// clientAuth chooses among the methods that the metadata names. RFC 8414 §2:
// naming none means client_secret_basic.
func (c *caller) clientAuth(methods []string) string {
	switch {
	case c.ClientSecret == "":
		return "none"
	case c.ClientAuth != "":
		return c.ClientAuth
	case slices.Contains(methods, "client_secret_post") && !slices.Contains(methods, "client_secret_basic"):
		return "post"
	}
	return "basic"
}

// getJSON asks an API on behalf of the user.
func (c *caller) getJSON(ctx context.Context, what, address, accessToken string, header http.Header, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return trouble(nil, "the URL of its %s endpoint is not valid", what)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+accessToken)
	answer, err := c.do(ctx, what, req)
	if err != nil {
		return err
	}
	switch answer.Status {
	case http.StatusOK:
	case http.StatusUnauthorized: // RFC 6750 §3.1: invalid_token
		return dead("", "its %s endpoint answered 401", what)
	default:
		return trouble(&statusError{answer.Status}, "its %s endpoint answered %d", what, answer.Status)
	}
	if err := unmarshal(answer.Body, v); err != nil {
		return trouble(err, "its %s endpoint answered no JSON that can be read", what)
	}
	return nil
}

// statusError is an answer that is neither 200 nor 401.
type statusError struct{ status int }

func (e *statusError) Error() string { return http.StatusText(e.status) }

// answered reports whether err says that an API answered with one of the
// statuses.
func answered(err error, statuses ...int) bool {
	var s *statusError
	return errors.As(err, &s) && slices.Contains(statuses, s.status)
}

// unmarshal is strict about the document and keeps the digits of numbers: an id
// may have more of them than a float64.
func unmarshal(data []byte, v any) error {
	if err := strictjson.Check(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

// authorizationURL builds the request of RFC 6749 §4.1.1 with PKCE. Later
// values win over those of the operator's Params.
func (c *caller) authorizationURL(ctx context.Context, r AuthRequest, scopes []string, more url.Values) (string, error) {
	switch {
	case r.State == "" || r.RedirectURI == "":
		return "", trouble(nil, "the authorization request lacks its state or redirect URI")
	case !oauth.ValidVerifier(r.CodeVerifier):
		return "", trouble(nil, "the PKCE verifier is not one (RFC 7636 section 4.1)")
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return "", err
	}
	if m.authorizationEndpoint == "" {
		return "", trouble(nil, "its metadata names no authorization endpoint")
	}
	u, err := url.Parse(m.authorizationEndpoint)
	if err != nil {
		return "", trouble(nil, "the URL of its authorization endpoint is not valid")
	}
	q := u.Query() // RFC 6749 §3.1: an endpoint's own query is kept
	for name, value := range c.Params {
		q.Set(name, value)
	}
	if r.Prompt != "" {
		q.Set("prompt", r.Prompt)
	}
	if r.LoginHint != "" {
		q.Set("login_hint", r.LoginHint)
	}
	maps.Copy(q, more)
	q.Set("response_type", "code")
	q.Set("client_id", c.ClientID)
	q.Set("redirect_uri", r.RedirectURI)
	q.Set("state", r.State)
	q.Set("code_challenge", oauth.ChallengeS256(r.CodeVerifier))
	q.Set("code_challenge_method", "S256")
	if len(scopes) > 0 {
		q.Set("scope", oauth.JoinScope(scopes))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// run keeps the metadata fresh, if it is discovered.
func (c *caller) run(ctx context.Context) {
	if c.discovery != nil {
		c.discovery.run(ctx)
	}
}

// complaints are log entries that would repeat with every request: each is
// written once a minute at most. The number of kinds is fixed by the code.
type complaints struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const complaintInterval = time.Minute

func (p *complaints) due(kind string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.last[kind]; ok && now.Sub(last) < complaintInterval {
		return false
	}
	if p.last == nil {
		p.last = make(map[string]time.Time)
	}
	p.last[kind] = now
	return true
}

// said is what the provider said, fit for a log: one line, bounded.
func said(code, description string) error {
	code, description = shorten(code, 60), shorten(description, 200)
	if description == "" {
		return fmt.Errorf("it said %q", code)
	}
	return fmt.Errorf("it said %q, %q", code, description)
}

func shorten(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}

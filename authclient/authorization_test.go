package authclient_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func metadata() *oauth.Metadata {
	return &oauth.Metadata{
		Issuer: "https://as.example", AuthorizationEndpoint: "https://as.example/authorize", TokenEndpoint: "https://as.example/token",
		ResponseTypesSupported: []string{"code"}, CodeChallengeMethodsSupported: []string{"S256"},
	}
}

func TestStartAuthorization(t *testing.T) {
	t.Parallel()
	const verifier = "0123456789012345678901234567890123456789012"
	base := "response_type=code&client_id=id&code_challenge=" + oauth.ChallengeS256(verifier) + "&code_challenge_method=S256&redirect_uri=https%3A%2F%2Fclient.example.com%2Fcallback"
	for _, test := range []struct {
		name     string
		request  authclient.AuthorizationRequest
		endpoint string
		want     string // after the endpoint
	}{
		{"only what is needed", authclient.AuthorizationRequest{}, "", "?" + base},
		{"all", authclient.AuthorizationRequest{State: "s t", Scope: "a b", Resource: "https://a.example/mcp"}, "", "?" + base + "&state=s+t&scope=a+b&resource=https%3A%2F%2Fa.example%2Fmcp"},
		{"offline_access asks for consent", authclient.AuthorizationRequest{Scope: "a offline_access"}, "", "?" + base + "&scope=a+offline_access&prompt=consent"},
		{"a query of the endpoint is kept", authclient.AuthorizationRequest{}, "https://as.example/authorize?tenant=t%20x&audience=", "?tenant=t%20x&audience=&" + base},
		{"our parameters win over the query", authclient.AuthorizationRequest{}, "https://as.example/authorize?client%5fid=evil&x=1", "?x=1&" + base},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := metadata()
			endpoint := m.AuthorizationEndpoint
			if test.endpoint != "" {
				m.AuthorizationEndpoint = test.endpoint
			}
			test.request.Client, test.request.RedirectURL, test.request.CodeVerifier = clientWith("", ""), callbackURL, verifier
			u, got, err := authclient.StartAuthorization(authclient.AuthorizationServer{URL: m.Issuer, Metadata: m}, test.request)
			if err != nil || got != verifier {
				t.Fatalf("verifier %q, error %v", got, err)
			}
			if diff := cmp.Diff(endpoint+test.want, u.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStartAuthorizationMakesAVerifier(t *testing.T) {
	t.Parallel()
	m := metadata()
	as := authclient.AuthorizationServer{URL: m.Issuer, Metadata: m}
	request := authclient.AuthorizationRequest{Client: clientWith("", ""), RedirectURL: callbackURL}
	u, first, err := authclient.StartAuthorization(as, request)
	if err != nil || !oauth.VerifyS256(first, u.Query().Get("code_challenge")) {
		t.Fatalf("verifier %q, %v", first, err)
	}
	if _, second, _ := authclient.StartAuthorization(as, request); second == first {
		t.Error("the same verifier twice")
	}
}

func TestStartAuthorizationRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(m *oauth.Metadata)
		err    error
	}{
		{"no response type code", func(m *oauth.Metadata) { m.ResponseTypesSupported = []string{"token"} }, authclient.ErrIncompatible},
		{"no S256", func(m *oauth.Metadata) { m.CodeChallengeMethodsSupported = []string{"plain"} }, authclient.ErrIncompatible},
		{"PKCE not mentioned", func(m *oauth.Metadata) { m.CodeChallengeMethodsSupported = nil }, authclient.ErrIncompatible},
		{"no authorization endpoint", func(m *oauth.Metadata) { m.AuthorizationEndpoint = "" }, authclient.ErrIncompatible},
		{"javascript as authorization endpoint", func(m *oauth.Metadata) { m.AuthorizationEndpoint = "javascript:alert(1)//" }, authclient.ErrRefusedURL},
		{"http as authorization endpoint", func(m *oauth.Metadata) { m.AuthorizationEndpoint = "http://as.example/a" }, authclient.ErrRefusedURL},
		{"private address as authorization endpoint", func(m *oauth.Metadata) { m.AuthorizationEndpoint = "https://192.168.0.1/reboot" }, authclient.ErrRefusedURL},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := metadata()
			test.change(m)
			_, _, err := authclient.StartAuthorization(authclient.AuthorizationServer{URL: m.Issuer, Metadata: m},
				authclient.AuthorizationRequest{Client: clientWith("", ""), RedirectURL: callbackURL})
			if !errors.Is(err, test.err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAssumePKCE(t *testing.T) {
	t.Parallel()
	m := metadata()
	m.CodeChallengeMethodsSupported = nil
	as := authclient.AuthorizationServer{URL: m.Issuer, Metadata: m, Options: authclient.Options{AssumePKCE: true}}
	u, _, err := authclient.StartAuthorization(as, authclient.AuthorizationRequest{Client: clientWith("", ""), RedirectURL: callbackURL})
	if err != nil || u.Query().Get("code_challenge_method") != "S256" {
		t.Errorf("%v, %v", u, err)
	}
}

// A server without PKCE is refused before anything is registered with it.
func TestNoRegistrationWithoutPKCE(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.set("code_challenge_methods_supported", nil)
	p, _ := web(t, nil)
	_, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if !errors.Is(err, authclient.ErrIncompatible) || len(s.to("/register")) != 0 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}

func TestValidateAuthorizationResponseIssuer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		iss      string
		promised bool
		valid    bool
	}{
		{"promised and right", "https://as.example", true, true},
		{"promised and absent", "", true, false},
		{"promised and wrong", "https://evil.example", true, false},
		{"not promised and absent", "", false, true},
		{"not promised and right", "https://as.example", false, true},
		{"not promised and wrong", "https://evil.example", false, false},
		{"a slash more", "https://as.example/", false, false},
		{"another case", "https://AS.example", false, false},
		{"the default port", "https://as.example:443", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := metadata()
			m.AuthorizationResponseIssParameterSupported = test.promised
			err := authclient.ValidateAuthorizationResponseIssuer(test.iss, m)
			if test.valid != (err == nil) || !test.valid && !errors.Is(err, authclient.ErrIssuerMismatch) {
				t.Errorf("error %v", err)
			}
		})
	}
	if err := authclient.ValidateAuthorizationResponseIssuer("https://evil.example", nil); err != nil {
		t.Errorf("without metadata: %v", err)
	}
	err := authclient.ValidateAuthorizationResponseIssuer("https://x\nlevel=info forged", metadata())
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error forges a line: %s", err)
	}
}

// What the callback must hold before the code is sent anywhere.
func TestCallback(t *testing.T) {
	t.Parallel()
	var denied *oauth.Error
	for _, test := range []struct {
		name     string
		promised bool // RFC 9207
		change   func(q url.Values)
		err      error // nil: accepted
		as       any
	}{
		{"as it came", true, func(url.Values) {}, nil, nil},
		{"another state", true, func(q url.Values) { q.Set("state", "x") }, authclient.ErrState, nil},
		{"no state", true, func(q url.Values) { q.Del("state") }, authclient.ErrState, nil},
		{"another issuer", true, func(q url.Values) { q.Set("iss", "https://evil.example") }, authclient.ErrIssuerMismatch, nil},
		{"no issuer though promised", true, func(q url.Values) { q.Del("iss") }, authclient.ErrIssuerMismatch, nil},
		{"another issuer, not promised", false, func(q url.Values) { q.Set("iss", "https://evil.example") }, authclient.ErrIssuerMismatch, nil},
		{"an error", true, func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, oauth.ErrAccessDenied, &denied},
		{"an error of another issuer is not believed", true, func(q url.Values) {
			q.Del("code")
			q.Set("error", "access_denied")
			q.Set("iss", "https://evil.example")
		}, authclient.ErrIssuerMismatch, nil},
		{"an error with another state is not believed", true, func(q url.Values) { q.Set("error", "access_denied"); q.Set("state", "x") }, authclient.ErrState, nil},
		{"neither code nor error", true, func(q url.Values) { q.Del("code") }, errAny, nil},
		{"an empty code", true, func(q url.Values) { q.Set("code", "") }, errAny, nil},
		{"two codes", true, func(q url.Values) { q.Add("code", "x") }, errAny, nil},
		{"two issuers", true, func(q url.Values) { q.Add("iss", "https://evil.example") }, errAny, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			if test.promised {
				s.set("authorization_response_iss_parameter_supported", true)
			}
			p, _ := web(t, nil)
			o := authclient.Options{ServerURL: s.mcpURL()}
			result, err := authclient.Auth(t.Context(), p, o)
			if err != nil {
				t.Fatal(err)
			}
			o.Callback = browse(t, result.AuthorizationURL)
			test.change(o.Callback)
			_, err = authclient.Auth(t.Context(), p, o)
			switch {
			case test.err == nil:
				if err != nil {
					t.Error(err)
				}
				return
			case err == nil, test.err != errAny && !errors.Is(err, test.err):
				t.Errorf("error %v", err)
			}
			if len(s.to("/token")) != 0 {
				t.Error("the code was sent")
			}
		})
	}
}

// errAny stands for any error.
var errAny = errors.New("any")

func TestCallbackErrorCannotForgeLogLines(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: s.mcpURL()}
	result, err := authclient.Auth(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	back := browse(t, result.AuthorizationURL)
	back.Del("code")
	back.Set("error", "x\ny")
	back.Set("error_description", "d\r\nlevel=info forged \x1b[31m")
	o.Callback = back
	_, err = authclient.Auth(t.Context(), p, o)
	if err == nil || strings.ContainsAny(err.Error(), "\r\n\x1b") {
		t.Errorf("error %q", err)
	}
}

// A callback counts once.
func TestCallbackTwice(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: s.mcpURL()}
	result, err := authclient.Auth(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Callback = browse(t, result.AuthorizationURL)
	if _, err := authclient.Auth(t.Context(), p, o); err != nil {
		t.Fatal(err)
	}
	if _, err := authclient.Auth(t.Context(), p, o); !errors.Is(err, authclient.ErrState) || len(s.to("/token")) != 1 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}

// states makes and checks its own state.
type states struct{ *authclient.Web }

func (states) State(context.Context) (string, error) { return "mine", nil }

func (states) CheckState(_ context.Context, state string) error {
	if state != "mine" {
		return errors.New("not mine")
	}
	return nil
}

func TestStateOfTheProvider(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: s.mcpURL()}
	result, err := authclient.Auth(t.Context(), states{p}, o)
	if err != nil || result.AuthorizationURL.Query().Get("state") != "mine" {
		t.Fatalf("%+v, %v", result, err)
	}
	back := browse(t, result.AuthorizationURL)
	back.Set("state", "other")
	o.Callback = back
	if _, err := authclient.Auth(t.Context(), states{p}, o); err == nil {
		t.Error("another state is accepted")
	}
	back.Set("state", "mine")
	if _, err := authclient.Auth(t.Context(), states{p}, o); err != nil {
		t.Error(err)
	}
}

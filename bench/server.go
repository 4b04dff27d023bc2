package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

const (
	redirectURI = "https://app.example.com/callback"
	// The pair of RFC 7636 appendix B.
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// authServer is an authorization server under measurement, seen by its clients.
type authServer struct {
	addr     string
	resource string
	// clientID is of a public client that has registered.
	clientID string
	http     *http.Client
	// signIn brings a login that the client began to the redirect with the code.
	signIn func(s *authServer, first *http.Response, user string) (*url.URL, error)

	mu    sync.Mutex
	users int
}

func newAuthServer(addr, path string, signIn func(*authServer, *http.Response, string) (*url.URL, error)) *authServer {
	return &authServer{
		addr: addr, resource: "http://" + addr + path, signIn: signIn,
		http: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
			Timeout:       answerTime,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

var registration = mustJSON(map[string]any{
	"client_name": "Benchmark", "redirect_uris": []string{redirectURI}, "token_endpoint_auth_method": "none",
	"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "scope": "mcp:read",
})

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func (s *authServer) register() error {
	resp, err := s.http.Post("http://"+s.addr+"/register", "application/json", bytes.NewReader(registration))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var client struct {
		ID string `json:"client_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&client); err != nil {
		return err
	}
	if client.ID == "" {
		return fmt.Errorf("%s registers no client: %s", s.addr, resp.Status)
	}
	s.clientID = client.ID
	return nil
}

// authorizeTarget is the path and query of an authorization request.
func (s *authServer) authorizeTarget() string {
	return "/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {s.clientID}, "redirect_uri": {redirectURI}, "code_challenge": {challenge},
		"code_challenge_method": {"S256"}, "scope": {"mcp:read"}, "state": {"0123456789abcdef0123456789abcdef"}, "resource": {s.resource},
	}.Encode()
}

// login signs a new user in and returns the authorization code.
func (s *authServer) login() (string, error) {
	s.mu.Lock()
	s.users++
	user := fmt.Sprintf("user-%d", s.users)
	s.mu.Unlock()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.addr+s.authorizeTarget(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "text/html")
	first, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer first.Body.Close()
	back, err := s.signIn(s, first, user)
	if err != nil {
		return "", err
	}
	code := back.Query().Get("code")
	if !strings.HasPrefix(back.String(), redirectURI) || code == "" {
		return "", fmt.Errorf("the login ends at %s", back)
	}
	return code, nil
}

// logins signs many new users in.
func (s *authServer) logins(n, atOnce int) ([]string, error) {
	codes := make([]string, n)
	errs := make([]error, atOnce)
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				codes[i], errs[w] = s.login()
			}
		})
	}
	all.Wait()
	return codes, errors.Join(errs...)
}

// codeForm and refreshForm are bodies of token requests.
func (s *authServer) codeForm(code string) string {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {redirectURI},
		"client_id": {s.clientID}, "resource": {s.resource},
	}.Encode()
}

func (s *authServer) refreshForm(token string) string {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {s.clientID}, "resource": {s.resource}}.Encode()
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// token sends a token request.
func (s *authServer) token(form string) (t tokens, err error) {
	resp, err := s.http.Post("http://"+s.addr+"/token", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&t); err != nil {
		return t, err
	}
	if t.Access == "" || t.Refresh == "" {
		return t, fmt.Errorf("/token at %s: %s without tokens", s.addr, resp.Status)
	}
	return t, nil
}

// get and post are requests byte by byte.
func get(addr, target, headers string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n%s\r\n", target, addr, headers)
}

func post(buf []byte, addr, target, headers, contentType, body string) []byte {
	return fmt.Appendf(buf, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: application/json, text/event-stream\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s",
		target, addr, contentType, len(body), headers, body)
}

const formType = "application/x-www-form-urlencoded"

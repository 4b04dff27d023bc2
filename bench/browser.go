package main

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var consentRequest = regexp.MustCompile(`name="request" value="([^"]*)"`)

// sdkLogin is that of the SDK's server, which signs in without asking.
func sdkLogin(_ *authServer, first *http.Response, _ string) (*url.URL, error) {
	return first.Location()
}

// brokerLogin allows the client on the consent page and comes back from the
// identity provider with a code for the user.
func brokerLogin(s *authServer, page *http.Response, user string) (*url.URL, error) {
	text, err := io.ReadAll(page.Body)
	if err != nil {
		return nil, err
	}
	request := consentRequest.FindSubmatch(text)
	if request == nil {
		return nil, fmt.Errorf("no consent page: %s: %.500s", page.Status, text)
	}
	form := url.Values{"request": {html.UnescapeString(string(request[1]))}, "decision": {"allow"}}
	jar := cookies(nil, page)
	toIDP, err := s.browse(http.MethodPost, "/mcp-auth/consent", form.Encode(), jar) //nolint:bodyclose // browse closes it
	if err != nil {
		return nil, err
	}
	at, err := toIDP.Location()
	if err != nil {
		return nil, fmt.Errorf("the consent form leads to no identity provider: %s", toIDP.Status)
	}
	query := url.Values{"code": {user}, "state": {at.Query().Get("state")}}
	back, err := s.browse(http.MethodGet, "/mcp-auth/callback?"+query.Encode(), "", cookies(jar, toIDP)) //nolint:bodyclose // browse closes it
	if err != nil {
		return nil, err
	}
	to, err := back.Location()
	if errors.Is(err, http.ErrNoLocation) {
		return nil, fmt.Errorf("the callback leads nowhere: %s", back.Status)
	}
	return to, err
}

func (s *authServer) browse(method, target, body string, jar []string) (*http.Response, error) {
	req, err := http.NewRequest(method, "http://"+s.addr+target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Cookie", strings.Join(jar, "; "))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Origin", "http://"+s.addr)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, errors.Join(err, resp.Body.Close())
}

// cookies adds those that an answer sets.
func cookies(jar []string, resp *http.Response) []string {
	for _, c := range resp.Cookies() {
		if c.MaxAge >= 0 {
			jar = append(jar, c.Name+"="+c.Value)
		}
	}
	return jar
}

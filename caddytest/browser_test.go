package caddytest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// The local account with which follow signs in.
const (
	aliceName     = "alice"
	alicePassword = "correct horse"
)

// follow is a browser without a screen and the person before it: it follows an
// authorization URL with a fresh cookie jar, presses Allow where a page asks
// for consent, signs in as alice where one asks for a password, and returns the
// redirect URI with the authorization response once it is sent there, where
// nothing has to listen.
func follow(ctx context.Context, t *testing.T, start, redirectURI string) (*url.URL, error) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	var arrived *url.URL
	browser := http.Client{
		Jar: jar,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if base, _, _ := strings.Cut(req.URL.String(), "?"); base == redirectURI {
				arrived = req.URL
				return http.ErrUseLastResponse
			}
			if len(via) > 20 {
				return fmt.Errorf("more than 20 redirects")
			}
			return nil
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, start, nil)
	if err != nil {
		return nil, err
	}
	for range 4 { // at most consent, sign-in and one page more
		req.Header.Set("Accept", "text/html")
		resp, err := browser.Do(req)
		if err != nil {
			return nil, err
		}
		page, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		switch {
		case arrived != nil:
			return arrived, nil
		case err != nil:
			return nil, err
		}
		if req, err = answerPage(ctx, resp, string(page)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("one page after another, and no redirect to the client")
}

// answerPage fills in the form of a page as alice would who wants to go on.
func answerPage(ctx context.Context, resp *http.Response, page string) (*http.Request, error) {
	form := formTag.FindStringSubmatch(page)
	if resp.StatusCode != http.StatusOK || form == nil {
		return nil, fmt.Errorf("%s answered %s instead of a redirect to the client: %.300s", resp.Request.URL.Redacted(), resp.Status, page)
	}
	values := url.Values{}
	for _, input := range inputTag.FindAllString(form[2], -1) {
		got := map[string]string{}
		for _, a := range attr.FindAllStringSubmatch(input, -1) {
			got[a[1]] = unescape.Replace(a[2])
		}
		switch got["name"] {
		case "username":
			got["value"] = aliceName
		case "password":
			got["value"] = alicePassword
		}
		values.Set(got["name"], got["value"])
	}
	if strings.Contains(form[2], `name="decision" value="allow"`) {
		values.Set("decision", "allow")
	}
	action, err := resp.Request.URL.Parse(unescape.Replace(form[1]))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

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

// follow is a browser without a screen: it follows an authorization URL with
// a fresh cookie jar until it is sent to the redirect URI, where nothing has
// to listen, and returns that URL with the authorization response.
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
	req.Header.Set("Accept", "text/html")
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if arrived == nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return nil, fmt.Errorf("%s answered %s instead of a redirect to the client: %s", resp.Request.URL.Redacted(), resp.Status, body)
	}
	return arrived, nil
}

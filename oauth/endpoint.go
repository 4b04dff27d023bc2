package oauth

import (
	"errors"
	"net/url"
	"strings"
)

// CheckEndpoint returns an error that says what to write instead unless raw is
// the URL of an endpoint to which codes and secrets may be sent: an absolute https
// URL without userinfo and fragment (RFC 6749 §3.1, §3.2). http is accepted on a
// loopback host, and anywhere if insecure is true. A query is kept by those who
// use the endpoint.
func CheckEndpoint(raw string, insecure bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("write an absolute URL such as https://idp.example.com/oauth/token")
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= 0x20 || r >= 0x7f }):
		return errors.New("percent-encode its spaces and its characters outside ASCII")
	case strings.Contains(raw, "#"):
		return errors.New("drop the # and what follows: an endpoint has no fragment (RFC 6749 section 3.1)")
	case u.User != nil:
		return errors.New("drop the user name or password from the URL")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (insecure || IsLoopbackHost(u.Hostname())):
		return nil
	}
	return errors.New("write https; http is for loopback hosts, since codes and secrets go there")
}

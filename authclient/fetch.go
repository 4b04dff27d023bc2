package authclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"mime"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// do sends a request and reads the answer. An error is the context's, a
// RefusedURLError or an EndpointError.
func (n *network) do(what string, req *http.Request) (*safehttp.Answer, error) {
	if _, err := n.check(what, req.URL); err != nil {
		return nil, err
	}
	answer, err := safehttp.Do(n.client, req, 0)
	if err == nil {
		return answer, nil
	}
	var refused *RefusedURLError
	switch {
	case errors.As(err, &refused):
		return nil, refused
	case errors.Is(err, safehttp.ErrRefused):
		return nil, private(what, req.URL, err)
	case context.Cause(req.Context()) != nil:
		return nil, context.Cause(req.Context())
	}
	return nil, &EndpointError{What: what, URL: bare(req.URL), Reason: whyNoAnswer(err), Err: err}
}

// whyNoAnswer says what to do about a request without an answer.
func whyNoAnswer(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, safehttp.ErrTooLarge):
		return "the answer is larger than 1 MiB: this is not the right URL"
	case errors.As(err, &dns):
		return "its name cannot be resolved: check the URL and the network"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: check the URL, and whether the server runs"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer within " + safehttp.Timeout.String() + ": try again later"
	case errors.As(err, &certificate):
		return "its certificate cannot be trusted: check the URL, the clock and the certificates of this machine"
	}
	return "the connection broke: try again later"
}

// unavailable is the error for an answer that says that the server has trouble.
func unavailable(what string, req *http.Request, answer *safehttp.Answer) *EndpointError {
	e := &EndpointError{What: what, URL: bare(req.URL), Status: answer.Status}
	switch {
	case answer.Status == http.StatusTooManyRequests:
		e.Reason = "too many requests (HTTP 429): wait and try again"
	case answer.Status >= 300 && answer.Status < 400:
		e.Reason = "it redirects elsewhere (HTTP " + strconv.Itoa(answer.Status) + "), which is not followed: correct the URL in the metadata"
	default:
		e.Reason = "it failed (HTTP " + strconv.Itoa(answer.Status) + "): try again later, and if it goes on tell its operator"
	}
	e.RetryAfter = retryAfter(answer.Header)
	return e
}

// maxRetryAfter is the longest Retry-After that is believed.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads Retry-After (RFC 9110 §10.2.3), seconds or a date; 0 if there
// is none to believe. The date is compared with that of the answer, which comes
// from the same clock.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, 1<<30)) * time.Second
	} else if until, err := http.ParseTime(value); err == nil {
		now, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			now = time.Now()
		}
		wait = until.Sub(now)
	}
	if wait <= 0 || wait > maxRetryAfter {
		return 0
	}
	return wait
}

// isWebPage reports whether the answer is HTML, as single-page applications
// and login portals send it for every path.
func isWebPage(answer *safehttp.Answer) bool {
	mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err == nil && (mediaType == "text/html" || mediaType == "application/xhtml+xml") {
		return true
	}
	return bytes.HasPrefix(bytes.TrimSpace(answer.Body), []byte("<"))
}

func webPage(what string, req *http.Request, answer *safehttp.Answer) *EndpointError {
	return &EndpointError{
		What: what, URL: bare(req.URL), Status: answer.Status,
		Reason: "it answers with a web page where JSON is due: check the URL, and whether a proxy or login page stands in front of it",
	}
}

// readJSON decodes the answer into v.
func readJSON(what string, req *http.Request, answer *safehttp.Answer, v any) error {
	if isWebPage(answer) {
		return webPage(what, req, answer)
	}
	e := &EndpointError{What: what, URL: bare(req.URL), Status: answer.Status}
	if err := strictjson.Unmarshal(answer.Body, v); err != nil {
		e.Reason, e.Err = "the answer is not the JSON that the standard asks for: tell its operator", err
		return e
	}
	return nil
}

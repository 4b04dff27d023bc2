// Package safehttp is the HTTP client of this module: bounded in time and
// size, and it follows no redirect, since a redirect would carry a credential,
// or the trust put into one URL, to another.
package safehttp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"
)

// MaxBody is how much of an answer is read, in bytes, unless the caller says
// otherwise.
const MaxBody = 1 << 20

// Timeout bounds one exchange, connection and body included, so that an answer
// can be given within ten seconds.
const Timeout = 9500 * time.Millisecond

// ErrTooLarge is returned when an answer has more bytes than allowed.
var ErrTooLarge = errors.New("the answer is too large")

// NewClient returns a client for URLs that the operator configured, or that a
// server so configured names. Private addresses are allowed, for an identity
// provider often has one; the proxy variables of the environment count.
func NewClient() *http.Client {
	return &http.Client{
		Timeout: Timeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           64,
			MaxIdleConnsPerHost:    16,
			MaxConnsPerHost:        128,
			IdleConnTimeout:        60 * time.Second,
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  Timeout,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Answer is an HTTP answer that has been read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends the request and reads the whole answer, at most limit bytes
// (MaxBody if 0). An error means that no complete answer came; it does not
// repeat the request's query.
func Do(client *http.Client, req *http.Request, limit int64) (*Answer, error) {
	if limit <= 0 {
		limit = MaxBody
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s://%s%s: %w", req.Method, req.URL.Scheme, req.URL.Host, req.URL.Path, rootCause(err))
	}
	defer resp.Body.Close()
	limit = min(limit, math.MaxInt64-1)
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", req.URL.Host, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("reading the answer of %s: %w", req.URL.Host, ErrTooLarge)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// rootCause takes the URL, query and all, off the client's error.
func rootCause(err error) error {
	type urlError interface{ Unwrap() error }
	if u, ok := err.(urlError); ok && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return err
}

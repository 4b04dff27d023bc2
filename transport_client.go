package mcpauth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// challengeTime bounds the question which challenge the server has.
const challengeTime = 5 * time.Second

// maxChallengeScope bounds the scope of a challenge that is believed, in bytes, as
// authclient does.
const maxChallengeScope = 4 << 10

// grantClient sends requests in the name of one grant.
type grantClient struct {
	*authclient.Transport
	provider authclient.Provider
	store    *patientStore
	options  authclient.Options
	// server sends requests to the MCP server, without a token.
	server http.RoundTripper
	// first lets one caller at a time get the first token.
	first chan struct{}
	// advise adds to a failure what to do about it, once; nil for nothing.
	advise func(ctx context.Context, err error) error
}

// RoundTrip implements http.RoundTripper. No request goes to the server without
// a token: one that serves strangers too would answer as it answers them.
func (c *grantClient) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := c.begin(r.Context()); err != nil {
		return nil, err
	}
	return c.Transport.RoundTrip(r)
}

// begin gets a token if there is none, once for all callers.
func (c *grantClient) begin(ctx context.Context) error {
	if had, err := c.hasToken(ctx); had || err != nil {
		return err
	}
	begun := c.store.now()
	select {
	case c.first <- struct{}{}:
		defer func() { <-c.first }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if had, err := c.hasToken(ctx); had || err != nil {
		return err
	}
	if err := c.store.remembered(ctx, begun); err != nil {
		return err
	}
	if err := c.fetch(ctx); err != nil {
		return c.failed(ctx, err) // before the next caller tries
	}
	return nil
}

func (c *grantClient) hasToken(ctx context.Context) (bool, error) {
	tokens, err := c.provider.Tokens(ctx, "")
	return tokens != nil && tokens.AccessToken != "", err
}

// fetch gets the first token. Where that fails for what a challenge could say,
// where the metadata are and which scope is meant, the server is asked for it.
func (c *grantClient) fetch(ctx context.Context) error {
	_, err := authclient.Auth(ctx, c.provider, c.options)
	var refusal *oauth.Error
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, authclient.ErrUnavailable), errors.Is(err, errLeaseHeld), errors.As(err, new(*rememberedError)):
		return err
	case errors.As(err, &refusal) && !errors.Is(refusal, oauth.ErrInvalidScope):
		return err
	}
	challenge := c.challenge(ctx)
	if challenge.ResourceMetadataURL == "" && challenge.Scope == "" {
		return err
	}
	o := c.options
	o.ResourceMetadataURL, o.Scope = challenge.ResourceMetadataURL, challenge.Scope
	_, err = authclient.Auth(ctx, c.provider, o)
	return err
}

// challenge returns that of the server to a request of our own, empty if there
// is none.
func (c *grantClient) challenge(ctx context.Context) oauth.ChallengeParams {
	trip, ok := ctx.Value(tripKey{}).(*trip)
	if !ok {
		return oauth.ChallengeParams{}
	}
	ctx, cancel := context.WithTimeout(fullContext{ctx, trip.context}, challengeTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.options.ServerURL, http.NoBody)
	if err != nil {
		return oauth.ChallengeParams{}
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := c.server.RoundTrip(r)
	if err != nil {
		return oauth.ChallengeParams{}
	}
	_ = resp.Body.Close()
	challenge := oauth.ExtractChallengeParams(resp.Header)
	if len(challenge.Scope) > maxChallengeScope {
		challenge.Scope = ""
	}
	return challenge
}

// failed remembers that there was no token, and returns err with advice.
func (c *grantClient) failed(ctx context.Context, err error) error {
	var advised *advisedError
	if c.advise != nil && ctx.Err() == nil && !errors.As(err, &advised) && !errors.As(err, new(*rememberedError)) {
		if better := c.advise(ctx, err); better != nil {
			err = &advisedError{better}
		}
	}
	c.store.failed(ctx, err)
	return err
}

// advisedError is a failure that says what to do.
type advisedError struct{ err error }

func (e *advisedError) Error() string { return e.err.Error() }
func (e *advisedError) Unwrap() error { return e.err }

// clientRefused reports whether the authorization server does not accept the
// client, which no new grant mends.
func clientRefused(err error) bool {
	return !errors.Is(err, authclient.ErrUnavailable) && (errors.Is(err, oauth.ErrInvalidClient) || errors.Is(err, oauth.ErrUnauthorizedClient))
}

// keptBody is a body of which the beginning can be read once more.
type keptBody struct {
	io.ReadCloser
	mu   sync.Mutex
	kept bytes.Buffer
	over bool // that is not all
}

// keepBody remembers what is sent of the request's body.
func keepBody(r *http.Request) *keptBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	k := &keptBody{ReadCloser: r.Body}
	r.Body = k
	return k
}

// Read implements io.Reader.
func (k *keptBody) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over = k.over || k.kept.Len()+n > maxPeek; k.over {
		k.kept = bytes.Buffer{}
	} else {
		k.kept.Write(p[:n])
	}
	return n, err
}

// again is what has been sent, nil if that is too much.
func (k *keptBody) again() io.ReadCloser {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return nil
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(k.kept.Bytes())))
}

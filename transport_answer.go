package mcpauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// What callers are told. The reasons are in the log: they are about somebody
// else's server and this Caddy's credentials.
const (
	notAccepted = "The MCP server behind this proxy does not accept the proxy's credentials; its operator finds the reason in the log"
	noTokenNow  = "The proxy has no token for the MCP server at the moment, try again later"
	notEnough   = "The MCP server wants more scope for this than the proxy has"
	sendAgain   = "The proxy has to get a new token for the MCP server first, send the request again"
)

// defaultRetryAfter is what callers are asked to wait.
const defaultRetryAfter = 5 * time.Second

// checked lets an answer of the server pass. What it says about tokens is for
// this Caddy and not for the caller, who has none: a challenge would send MCP
// clients to an authorization server whose tokens are refused here.
func (t *Transport) checked(r *http.Request, resp *http.Response) *http.Response {
	challenge := oauth.ExtractChallengeParams(resp.Header)
	switch {
	case resp.StatusCode == http.StatusForbidden && challenge.Error == oauth.ErrInsufficientScope.Code:
		t.logger.Warn("the MCP server wants more scope than this proxy can get",
			zap.String("resource", t.origin), zap.String("scope", oauth.CleanDescription(challenge.Scope)))
		_ = resp.Body.Close()
		return answer(r, oauth.ErrAccessDenied.Describe(notEnough), 0)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden && challenge != (oauth.ChallengeParams{}):
		t.logger.Error("the MCP server refuses the token of this proxy",
			zap.String("resource", t.origin), zap.Int("status", resp.StatusCode), zap.String("challenge", oauth.CleanDescription(resp.Header.Get("Www-Authenticate"))))
		_ = resp.Body.Close()
		return answer(r, oauth.ErrServerError.Describe(notAccepted).WithStatus(http.StatusBadGateway), 0)
	}
	resp.Header.Del("Www-Authenticate")
	return resp
}

// explain answers a request for which there is no token, and logs why.
func (t *Transport) explain(r *http.Request, err error) *http.Response {
	if forCaller, ok := errors.AsType[callerError](err); ok {
		return forCaller.answer(r)
	}
	log := t.logger.Error
	if _, remembered := errors.AsType[*rememberedError](err); remembered {
		log = t.logger.Debug // it is in the log already
	}
	message := "there is no token for the MCP server"
	if errors.Is(err, authclient.ErrInsufficientScope) {
		log, message = t.logger.Warn, "the MCP server wants more scope than this proxy can get"
	}
	log(message, zap.String("resource", t.origin), zap.Error(err))
	var endpoint *authclient.EndpointError
	switch {
	case errors.Is(err, authclient.ErrBodyNotReplayable):
		return answer(r, oauth.ErrTemporarilyUnavailable.Describe(sendAgain), time.Second)
	case errors.Is(err, authclient.ErrInsufficientScope):
		return answer(r, oauth.ErrAccessDenied.Describe(notEnough), 0)
	case errors.Is(err, authclient.ErrUnavailable), errors.Is(err, oauth.ErrTemporarilyUnavailable), errors.Is(err, errLeaseHeld):
		wait := defaultRetryAfter
		if errors.As(err, &endpoint) && endpoint.RetryAfter > 0 {
			wait = endpoint.RetryAfter
		}
		return answer(r, oauth.ErrTemporarilyUnavailable.Describe(noTokenNow), wait)
	default:
		return answer(r, oauth.ErrServerError.Describe(notAccepted).WithStatus(http.StatusBadGateway), 0)
	}
}

// answer is an answer of the proxy itself.
func answer(r *http.Request, e *oauth.Error, wait time.Duration) *http.Response {
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte("{}")
	}
	resp := jsonAnswer(r, e.Status, body)
	if wait > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	return resp
}

func jsonAnswer(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		Status:     strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode: status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type":   {"application/json"},
			"Cache-Control":  {"no-store"},
			"Content-Length": {strconv.Itoa(len(body))},
		},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       r,
	}
}

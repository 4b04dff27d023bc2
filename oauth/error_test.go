package oauth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK §8: every class is there, with its code. The statuses are ours: the SDK
// answers 400 to nearly all.
func TestErrorCodesAndStatuses(t *testing.T) {
	for _, test := range []struct {
		err    *oauth.Error
		code   string
		status int
	}{
		{oauth.ErrInvalidRequest, "invalid_request", 400},
		{oauth.ErrInvalidClient, "invalid_client", 401},
		{oauth.ErrInvalidGrant, "invalid_grant", 400},
		{oauth.ErrUnauthorizedClient, "unauthorized_client", 400},
		{oauth.ErrUnsupportedGrantType, "unsupported_grant_type", 400},
		{oauth.ErrInvalidScope, "invalid_scope", 400},
		{oauth.ErrAccessDenied, "access_denied", 403},
		{oauth.ErrServerError, "server_error", 500},
		{oauth.ErrTemporarilyUnavailable, "temporarily_unavailable", 503},
		{oauth.ErrUnsupportedResponseType, "unsupported_response_type", 400},
		{oauth.ErrUnsupportedTokenType, "unsupported_token_type", 400},
		{oauth.ErrInvalidToken, "invalid_token", 401},
		{oauth.ErrMethodNotAllowed, "method_not_allowed", 405},
		{oauth.ErrTooManyRequests, "too_many_requests", 429},
		{oauth.ErrInvalidClientMetadata, "invalid_client_metadata", 400},
		{oauth.ErrInsufficientScope, "insufficient_scope", 403},
		{oauth.ErrInvalidTarget, "invalid_target", 400},
		{oauth.ErrInvalidRedirectURI, "invalid_redirect_uri", 400},
	} {
		rebuilt := oauth.NewError(test.code, "x")
		if test.err.Code != test.code || test.err.HTTPStatus() != test.status {
			t.Errorf("%s: code %q, status %d", test.code, test.err.Code, test.err.HTTPStatus())
		}
		if !errors.Is(rebuilt, test.err) || rebuilt.HTTPStatus() != test.status {
			t.Errorf("NewError(%q) is %v with status %d", test.code, rebuilt, rebuilt.HTTPStatus())
		}
		if test.err.Description != "" {
			t.Errorf("%s: the shared value was changed", test.code)
		}
	}
	if custom := oauth.NewError("interaction_required", "log in"); custom.HTTPStatus() != 400 || custom.Error() != "interaction_required: log in" {
		t.Errorf("custom code: %v, %d", custom, custom.HTTPStatus())
	}
	if status := (&oauth.Error{Code: "x"}).HTTPStatus(); status != 400 {
		t.Errorf("status of a literal: %d", status)
	}
}

// SDK §8, toResponseObject.
func TestErrorMarshalJSON(t *testing.T) {
	for _, test := range []struct {
		name string
		err  *oauth.Error
		want string
	}{
		{"description is present when empty", oauth.ErrInvalidGrant, `{"error":"invalid_grant","error_description":""}`},
		{"error_uri only if set", oauth.ErrInvalidGrant.Describe("used").WithURI("https://h.example/e"), `{"error":"invalid_grant","error_description":"used","error_uri":"https://h.example/e"}`},
		{"the cause stays here", oauth.ErrServerError.Describe("x").Because(errors.New("secret")), `{"error":"server_error","error_description":"x"}`},
		{"one line, no quotes", oauth.ErrInvalidRequest.Describe("a\r\n\"b\" \\é"), `{"error":"invalid_request","error_description":"a  'b' ' "}`},
		{"a literal is cleaned as well", &oauth.Error{Code: "x", Description: "a\nb"}, `{"error":"x","error_description":"a b"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := json.Marshal(test.err)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
	if got := oauth.CleanDescription(strings.Repeat("é", 1000)); len(got) != 300 {
		t.Errorf("a long description has %d bytes", len(got))
	}
}

func TestErrorIsAndCause(t *testing.T) {
	err := error(oauth.ErrInvalidGrant.Describe("the code was used").WithStatus(418).Because(io.ErrUnexpectedEOF))
	if !errors.Is(err, oauth.ErrInvalidGrant) || errors.Is(err, oauth.ErrInvalidClient) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("errors.Is disagrees about %v", err)
	}
	if want := "invalid_grant: the code was used: unexpected EOF"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	wrapped := fmt.Errorf("token endpoint: %w", err)
	if got := oauth.AsError(wrapped); got.Code != "invalid_grant" || got.HTTPStatus() != 418 {
		t.Errorf("AsError of a wrapped error: %v", got)
	}
	unforeseen := oauth.AsError(io.ErrClosedPipe)
	if !errors.Is(unforeseen, oauth.ErrServerError) || unforeseen.Description != "Internal Server Error" || !errors.Is(unforeseen, io.ErrClosedPipe) {
		t.Errorf("AsError of another error: %v", unforeseen)
	}
	if oauth.ErrInvalidGrant.HTTPStatus() != 400 || errors.Unwrap(oauth.ErrInvalidGrant) != nil {
		t.Error("the shared value was changed")
	}
}

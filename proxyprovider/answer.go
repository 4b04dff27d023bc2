package proxyprovider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// members are the members of an upstream's JSON object, or the parameters of
// its form-encoded answer as JSON strings.
type members map[string]json.RawMessage

// text returns a member that is a string, "" if it is absent or something else.
func (m members) text(name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

// absent reports whether a member is missing, null or an empty string.
func (m members) absent(name string) bool {
	raw := m[name]
	return len(raw) == 0 || string(raw) == "null" || string(raw) == `""`
}

// refusal is an OAuth error (RFC 6749 §5.2, RFC 7591 §3.2.2) that the upstream
// answered. Its text is for the log only.
type refusal struct {
	status            int
	code, description string
}

// readAnswer returns the members of a successful answer, or the upstream's
// refusal, or an error if the answer is neither: the upstream is in trouble, or
// something else answers in its place. read is readObject or readObjectOrForm.
func readAnswer(answer *safehttp.Answer, read func(*safehttp.Answer) (members, error)) (members, *refusal, error) {
	status := answer.Status
	if status < 200 || status >= 300 && status < 400 || status == http.StatusTooManyRequests || status >= 500 {
		return nil, nil, fmt.Errorf("the upstream answered with status %d", status)
	}
	m, err := read(answer)
	if err != nil {
		return nil, nil, fmt.Errorf("the upstream answered with status %d and an unreadable body: %w", status, err)
	}
	// GitHub answers errors with 200:
	// https://github.com/modelcontextprotocol/typescript-sdk/issues/1342
	if code := m.text("error"); code != "" {
		return nil, &refusal{status: status, code: code, description: m.text("error_description")}, nil
	}
	if !m.absent("error") || status >= 300 {
		return nil, nil, fmt.Errorf("the upstream answered with status %d and no OAuth error", status)
	}
	return m, nil, nil
}

// readObject reads a JSON object, whatever its content type.
func readObject(answer *safehttp.Answer) (members, error) {
	var m members
	if err := strictjson.Unmarshal(answer.Body, &m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("null in place of an object")
	}
	return m, nil
}

// readObjectOrForm reads a JSON object, or a form, which GitHub sends to those
// who do not ask for JSON, and some to all.
func readObjectOrForm(answer *safehttp.Answer) (members, error) {
	mediaType, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	body := bytes.TrimSpace(answer.Body)
	if mediaType != "application/x-www-form-urlencoded" || bytes.HasPrefix(body, []byte("{")) {
		return readObject(answer)
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, errors.New("the form is malformed")
	}
	m := make(members, len(values))
	for name, v := range values {
		if len(v) != 1 {
			return nil, errors.New("the form has a parameter twice")
		}
		if m[name], err = json.Marshal(v[0]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// readTokens reads a token response. Members of other names are dropped, as
// the SDK does. A missing token_type means Bearer; expires_in may be a string;
// null and "" count as absent.
func readTokens(m members) (*oauth.Tokens, error) {
	kept := make(members)
	for _, name := range []string{"access_token", "id_token", "token_type", "expires_in", "scope", "refresh_token"} {
		if !m.absent(name) {
			kept[name] = m[name]
		}
	}
	if kept["token_type"] == nil {
		kept["token_type"] = json.RawMessage(`"Bearer"`)
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	t := new(oauth.Tokens)
	if err := t.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	for _, token := range []string{t.AccessToken, t.RefreshToken, t.IDToken, t.TokenType} {
		if !isVSCHAR(token) {
			return nil, errors.New("a token holds a character that RFC 6749 does not allow")
		}
	}
	return t, nil
}

// isVSCHAR reports whether s is printable ASCII, as tokens and client ids are
// (RFC 6749 appendix A).
func isVSCHAR(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

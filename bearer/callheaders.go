package bearer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// mirroredSince is the revision that has servers compare Mcp-Method and Mcp-Name
// with the body (MCP 2026-07-28, Streamable HTTP, "Server Validation").
const mirroredSince = "2026-07-28"

// callHeaders are the request metadata headers of a POST.
type callHeaders struct {
	// mirrored tells that the client speaks a revision with these headers.
	mirrored     bool
	method, name string // "" if they are not there
	// raw tells that the name is UTF-8 that was not put into Base64, as clients must
	// and some do not. It can equal the body's, and is not believed without it.
	raw bool
}

// readCallHeaders decodes the headers, each of which may be there once.
func readCallHeaders(h http.Header) (headers callHeaders, err *oauth.Error) {
	version, err := singleASCII(h, "Mcp-Protocol-Version")
	if err != nil {
		return headers, err
	}
	headers.mirrored = isRevision(version) && version >= mirroredSince
	if headers.method, err = singleASCII(h, "Mcp-Method"); err != nil {
		return headers, err
	}
	if headers.name, err = singleHeader(h, "Mcp-Name"); err != nil {
		return headers, err
	}
	if !isPrintableASCII(headers.name) {
		if !isPlainText([]byte(headers.name)) {
			return headers, badHeader("The header Mcp-Name holds control characters or something else than UTF-8")
		}
		headers.raw = true
		return headers, nil
	}
	var ok bool
	if headers.name, ok = decodeHeaderValue(headers.name); !ok {
		return headers, badHeader("The header Mcp-Name is not valid Base64 of UTF-8 without control characters")
	}
	return headers, nil
}

// errHeaderMismatch is the cause of refusals that MCP has an error of JSON-RPC
// for.
var errHeaderMismatch = errors.New("HeaderMismatch")

// headerMismatch is the code of that error (MCP 2026-07-28, Streamable HTTP,
// "Server Validation").
const headerMismatch = -32020

func badHeader(description string) *oauth.Error {
	return badCall(description).Because(errHeaderMismatch)
}

// writeHeaderMismatch answers as an MCP server does.
func writeHeaderMismatch(w http.ResponseWriter, r *http.Request, err *oauth.Error) {
	var answer struct {
		Version string `json:"jsonrpc"`
		ID      *int   `json:"id"` // unknown
		Error   struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	answer.Version, answer.Error.Code, answer.Error.Message = "2.0", headerMismatch, err.Description
	body, marshalErr := json.Marshal(answer)
	if marshalErr != nil { // numbers and strings
		body = nil
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, r, err.HTTPStatus(), body)
}

func singleHeader(h http.Header, name string) (string, *oauth.Error) {
	values := h[name]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || values[0] == "" {
		return "", badHeader("The header " + name + " is not there exactly once with a value")
	}
	return values[0], nil
}

func singleASCII(h http.Header, name string) (string, *oauth.Error) {
	value, err := singleHeader(h, name)
	if err == nil && !isPrintableASCII(value) {
		err = badHeader("The header " + name + " holds something else than printable ASCII")
	}
	return value, err
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 0x20 || c > 0x7e) && c != '\t' {
			return false
		}
	}
	return true
}

// isPlainText reports whether it is UTF-8 without control characters.
func isPlainText(text []byte) bool {
	for _, c := range text {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(text)
}

// decodeHeaderValue decodes the Base64 sentinel form (MCP 2026-07-28, Streamable
// HTTP, "Value Encoding").
func decodeHeaderValue(value string) (string, bool) {
	const prefix, suffix = "=?base64?", "?="
	if len(value) < len(prefix)+len(suffix) || !strings.HasPrefix(value, prefix) || !strings.HasSuffix(value, suffix) {
		return value, true
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(value[len(prefix) : len(value)-len(suffix)])
	if err != nil || len(decoded) == 0 || !isPlainText(decoded) {
		return "", false
	}
	return string(decoded), true
}

// isRevision reports whether s is a revision of MCP, a date.
func isRevision(s string) bool {
	if len(s) != len(mirroredSince) {
		return false
	}
	for i := range len(s) {
		if i == 4 || i == 7 {
			if s[i] != '-' {
				return false
			}
		} else if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// check compares the headers with the messages of the body.
func (headers *callHeaders) check(messages []strictjson.Message, batch bool) *oauth.Error {
	if headers.mirrored && batch {
		return badCall("A batch is for revisions before 2025-06-18; send one message at a time")
	}
	for i := range messages {
		m := &messages[i]
		if headers.method != "" && headers.method != m.Method {
			return badHeader("The header Mcp-Method differs from the method in the body")
		}
		if headers.name != "" && !isMirroredName(headers.name, m) {
			return badHeader("The header Mcp-Name differs from the name or URI in the body")
		}
		if !headers.mirrored || !m.Request {
			continue
		}
		if err := headers.complete(m.Method); err != nil {
			return err
		}
	}
	return nil
}

// complete tells what is missing for a request.
func (headers *callHeaders) complete(method string) *oauth.Error {
	if headers.method == "" {
		return badHeader("The header Mcp-Method is missing, which MCP-Protocol-Version 2026-07-28 and later require")
	}
	switch method {
	case "tools/call", "prompts/get", "resources/read":
		if headers.name == "" {
			return badHeader("The header Mcp-Name is missing, which MCP-Protocol-Version 2026-07-28 and later require")
		}
	}
	return nil
}

// isMirroredName reports whether the header Mcp-Name is right for a message.
// The tasks extension (SEP-2663) has the task there.
func isMirroredName(name string, m *strictjson.Message) bool {
	switch m.Method {
	case "tools/call", "prompts/get":
		return name == m.Name
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		return name == m.URI
	case "completion/complete":
		return name == m.Name || name == m.URI
	}
	return name == m.TaskID || name == m.Name || name == m.URI
}

// tellAll reports whether the headers alone say what the rules are about. What
// the server behind compares is the method, and the name of three methods.
func (headers *callHeaders) tellAll() bool {
	if !headers.mirrored || headers.raw {
		return false
	}
	switch headers.method {
	case "", "resources/subscribe", "resources/unsubscribe", "completion/complete", "subscriptions/listen":
		return false
	}
	return true
}

// call is what the headers say.
func (headers *callHeaders) call(info *oauth.TokenInfo) Call {
	call := Call{Info: info, Method: headers.method}
	switch headers.method {
	case "tools/call", "prompts/get":
		call.Name = headers.name
	case "resources/read":
		call.URI = headers.name
	}
	return call
}

// reachServer refuses what makes the server behind see other headers than these:
// a copy under a name that it may take for the same, and a Connection header that
// has a proxy drop one.
func (headers *callHeaders) reachServer(h http.Header) *oauth.Error {
	for name := range h {
		switch name {
		case "Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name":
		default:
			if isMirroredHeader(name) {
				return badHeader("A header has the name of an MCP header in another spelling")
			}
		}
	}
	for _, value := range h["Connection"] {
		for field := range strings.SplitSeq(value, ",") {
			if isMirroredHeader(textproto.TrimString(field)) {
				return badHeader("The header Connection names an MCP header")
			}
		}
	}
	return nil
}

func isMirroredHeader(name string) bool {
	for _, mirrored := range [...]string{"mcp-protocol-version", "mcp-method", "mcp-name"} {
		if len(name) == len(mirrored) && hasFoldedPrefix(name, mirrored) {
			return true
		}
	}
	return false
}

package bearer

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxListAnswer bounds one JSON-RPC message that is looked into, in bytes.
const maxListAnswer = 16 << 20

// listFilter leaves out of the lists in an answer what the token can never
// call. JSON is held back until it is complete, an event stream event by event;
// anything else passes. Nothing that may be a list passes without a look.
type listFilter struct {
	may  func(kind CallKind, name string) bool
	mode filterMode

	status int
	text   bool   // has to be UTF-8
	held   []byte // the beginning of a body, or all of it
	events eventFilter
}

type filterMode int8

const (
	// filterSniffs holds the body until its first character tells what it is.
	filterSniffs filterMode = iota
	// filterHolds holds JSON until its end.
	filterHolds
	filterEvents
	filterPasses
)

// askForPlain asks the server behind for an answer that can be read: whole and
// not encoded.
func askForPlain(h http.Header) {
	h["Accept-Encoding"] = []string{"identity"}
	delete(h, "Range")
	delete(h, "If-Range")
}

func (f *listFilter) passes() bool { return f.mode == filterPasses }

// holds reports whether nothing is to be sent yet.
func (f *listFilter) holds() bool { return f.mode == filterSniffs || f.mode == filterHolds }

// begin decides by the header what is to be done. The refusal is for an answer
// that cannot be read.
func (f *listFilter) begin(a *answer, status int) *oauth.Error {
	f.status = status
	h := a.Header()
	switch {
	case status == http.StatusSwitchingProtocols:
		return unreadableAnswer("it left HTTP, where lists cannot be filtered")
	case a.request.Method == http.MethodHead, status == http.StatusNoContent, status == http.StatusNotModified:
		f.mode = filterPasses
		return nil
	case isEncoded(h):
		return unreadableAnswer("it was encoded although identity was asked for")
	case status == http.StatusPartialContent:
		return unreadableAnswer("it was a part although the whole was asked for")
	case saysText(h) && namesOtherCharset(h):
		return notUTF8()
	}
	f.text = saysText(h)
	if a.events {
		f.mode = filterEvents
		f.events.may = f.may
		dropLength(h)
	}
	return nil
}

func unreadableAnswer(why string) *oauth.Error {
	return oauth.NewError("bad_gateway", "The MCP server sent an answer that cannot be checked: "+why).WithStatus(http.StatusBadGateway)
}

func isEncoded(h http.Header) bool {
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(value, "identity") {
			return true
		}
	}
	return false
}

// dropLength removes what is true of the unfiltered body only.
func dropLength(h http.Header) {
	for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Accept-Ranges"} {
		delete(h, name)
	}
	dropDigests(h)
}

func dropDigests(h http.Header) {
	for _, name := range []string{"Content-Digest", "Repr-Digest", "Digest", "Content-Md5"} {
		delete(h, name)
	}
}

// write takes a part of the body.
func (f *listFilter) write(a *answer, b []byte) (int, error) {
	if f.text && isWide(b) {
		a.fail(notUTF8())
		return 0, errEnded
	}
	if f.mode == filterEvents {
		out, refused := f.events.feed(b)
		if _, err := a.ResponseWriter.Write(out); len(out) > 0 && err != nil {
			return 0, err
		}
		if refused != nil {
			a.fail(refused)
			return 0, errEnded
		}
		return len(b), nil
	}
	f.held = append(f.held, b...)
	if f.mode == filterSniffs {
		f.sniff()
	}
	if f.mode == filterPasses {
		if err := f.release(a); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	if len(f.held) > maxListAnswer {
		a.fail(answerTooLarge())
		return 0, errEnded
	}
	return len(b), nil
}

func answerTooLarge() *oauth.Error { return unreadableAnswer("a message of it is larger than 16 MiB") }

// sniff tells JSON-RPC, an object or an array, from all else, whatever the
// Content-Type says: some clients do not look at that.
func (f *listFilter) sniff() {
	text := trimJSON(f.held)
	switch {
	case len(text) == 0:
	case looksLikeMessage(text):
		f.mode = filterHolds
	default:
		f.mode = filterPasses
	}
}

// startEarly sends the header while there is no body yet, if the handler flushes
// it and does not call the body JSON.
func (f *listFilter) startEarly(a *answer) bool {
	if !a.sent && f.mode == filterSniffs && len(f.held) == 0 {
		switch t := answerType(a.Header()); {
		case t == "", strings.HasSuffix(t, "json"):
		default:
			dropLength(a.Header())
			a.send(f.status)
		}
	}
	return a.sent
}

// byteOrderMark may stand before JSON and event streams: browsers skip it.
var byteOrderMark = []byte("\xef\xbb\xbf")

// trimJSON removes what may stand before JSON.
func trimJSON(text []byte) []byte {
	return bytes.TrimLeft(bytes.TrimPrefix(text, byteOrderMark), " \t\r\n")
}

// looksLikeMessage reports whether trimmed text begins like a JSON-RPC message
// or batch.
func looksLikeMessage(text []byte) bool { return len(text) > 0 && (text[0] == '{' || text[0] == '[') }

// release sends what was held, as it is.
func (f *listFilter) release(a *answer) error {
	if !a.sent {
		a.send(f.status)
	}
	held := f.held
	f.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := a.ResponseWriter.Write(held)
	return err
}

// finish sends the rest when the handler is done.
func (f *listFilter) finish(a *answer) {
	switch f.mode {
	case filterEvents:
		if rest := f.events.finish(); len(rest) > 0 {
			_, _ = a.ResponseWriter.Write(rest) // the client is gone: nothing to do about it
		}
	case filterSniffs: // nothing but white space
		f.mode = filterPasses
		_ = f.release(a)
	case filterHolds:
		f.finishJSON(a)
	case filterPasses: // nothing is held back
	}
}

func (f *listFilter) finishJSON(a *answer) {
	if f.text && !utf8.Valid(f.held) {
		a.fail(notUTF8())
		return
	}
	filtered, ok := filterMessage(f.held, f.may)
	if !ok {
		a.fail(unreadableAnswer("it is not valid JSON"))
		return
	}
	h := a.Header()
	if len(filtered) != len(f.held) && !a.sent {
		dropLength(h)
		if len(h["Trailer"]) == 0 {
			h["Content-Length"] = []string{strconv.Itoa(len(filtered))}
		}
	}
	f.held = filtered
	_ = f.release(a)
}

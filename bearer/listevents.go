package bearer

import (
	"bytes"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// eventFilter is the listFilter of an event stream (HTML standard, "Server-sent
// events"). Events pass byte for byte, unless something is left out of them or
// readers could disagree about where their lines end.
type eventFilter struct {
	may func(kind CallKind, name string) bool

	block   []byte // lines of the event that is under way
	line    int    // where the last line begins in block
	afterCR bool   // an LF at the beginning of what comes belongs to the line before
	started bool   // an event was sent
	rewrote bool   // not byte for byte
}

// feed takes a part of the stream and returns what can be sent.
func (f *eventFilter) feed(b []byte) (out []byte, refused *oauth.Error) {
	if f.afterCR && len(b) > 0 {
		f.afterCR = false
		if b[0] == '\n' {
			if len(f.block) > 0 {
				f.block = append(f.block, '\n')
				f.line = len(f.block)
			} else if !f.rewrote {
				out = append(out, '\n') // of the event that was sent
			}
			b = b[1:]
		}
	}
	for len(b) > 0 {
		end := bytes.IndexAny(b, "\r\n")
		if end < 0 {
			f.block = append(f.block, b...)
			b = nil
		} else {
			size := end + 1
			if b[end] == '\r' {
				switch {
				case size == len(b):
					f.afterCR = true
				case b[size] == '\n':
					size++
				}
			}
			f.block = append(f.block, b[:size]...)
			b = b[size:]
			if isBlank(f.block[f.line:]) {
				out = f.dispatch(out)
			}
			f.line = len(f.block)
		}
		if len(f.block) > maxListAnswer {
			return out, answerTooLarge()
		}
	}
	return out, nil
}

func isBlank(line []byte) bool { return len(bytes.TrimRight(line, "\r\n")) == 0 }

// finish returns what is left at the end of the stream: some readers take an
// event that nothing ends.
func (f *eventFilter) finish() (out []byte) { return f.dispatch(nil) }

// dispatch appends to out what may be sent of the block, and begins a new one.
func (f *eventFilter) dispatch(out []byte) []byte {
	block := f.block
	first := !f.started
	f.block, f.line, f.started, f.rewrote = f.block[:0], 0, true, false
	if !mayHoldList(block) {
		return append(out, block...)
	}
	return f.rewrite(out, block, first)
}

// rewrite appends the block as it may be sent.
func (f *eventFilter) rewrite(out, block []byte, first bool) []byte {
	e := parseEvent(block, first)
	filtered, ok := filterMessage(e.data, f.may)
	switch {
	case !ok: // it is no message to any reader, and might be a list to a lenient one
		f.rewrote = true
		return out
	case e.plain && len(filtered) == len(e.data):
		return append(out, block...)
	}
	f.rewrote = true
	for _, line := range e.others {
		out = append(append(out, line...), '\n')
	}
	if e.hasData {
		for line := range bytes.SplitSeq(filtered, []byte{'\n'}) {
			out = append(append(append(out, "data: "...), line...), '\n')
		}
	}
	if e.ended {
		out = append(out, '\n')
	}
	return out
}

// event is one event, read.
type event struct {
	hasData bool
	data    []byte
	// others are the other lines that mean something to a reader and cannot hold a
	// list.
	others [][]byte
	// ended tells that a blank line ends it.
	ended bool
	// plain tells that all readers agree about its lines, and that no line but
	// data can hold a list.
	plain bool
}

func parseEvent(block []byte, first bool) event {
	e := event{plain: true}
	if trimmed := bytes.TrimPrefix(block, byteOrderMark); first && len(trimmed) != len(block) {
		block, e.plain = trimmed, false
	}
	for len(block) > 0 {
		var line []byte
		line, block = e.cutLine(block)
		field, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case len(line) == 0:
			e.ended = true
		case string(field) == "data":
			value = bytes.TrimPrefix(value, []byte{' '})
			if e.hasData {
				e.data = append(e.data, '\n')
			}
			e.data, e.hasData = append(e.data, value...), true
		case mayHoldList(line):
			e.plain = false
		default:
			e.others = append(e.others, line)
		}
	}
	return e
}

// cutLine returns the first line, without its end. Some readers do not take a
// CR alone for an end.
func (e *event) cutLine(block []byte) (line, rest []byte) {
	end := bytes.IndexAny(block, "\r\n")
	if end < 0 {
		return block, nil
	}
	line, rest = block[:end], block[end+1:]
	switch {
	case block[end] == '\n':
	case len(rest) > 0 && rest[0] == '\n':
		rest = rest[1:]
	case len(rest) > 0: // at the very end, an LF may follow or else the next event
		e.plain = false
	}
	return line, rest
}

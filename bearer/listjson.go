package bearer

import (
	"bytes"
	"encoding/json"
	"strings"
)

// listMembers are the members of a result that are lists, what their entries
// are to the policy, and what names an entry.
var listMembers = [...]struct {
	member string
	kind   CallKind
	name   string
}{
	{"tools", ToolCall, "name"},
	{"prompts", PromptCall, "name"},
	{"resources", ResourceCall, "uri"},
	{"resourceTemplates", ResourceCall, "uriTemplate"},
}

// mayHoldList is false only if no reader finds a list in text: it holds none of
// the names above, in any case, and no escape that could spell one. Parts of
// the names are enough, and have no letter (k, s) that is the lower case of one
// outside ASCII, which readers that ignore case would take for it.
func mayHoldList(text []byte) bool {
	for i, c := range text {
		switch c | 0x20 {
		case '\\' | 0x20:
			if i+1 < len(text) && text[i+1] == 'u' {
				return true
			}
		case 't':
			if hasFoldedText(text[i:], "tool") {
				return true
			}
		case 'p':
			if hasFoldedText(text[i:], "prompt") {
				return true
			}
		case 'o':
			if hasFoldedText(text[i:], "ource") {
				return true
			}
		}
	}
	return false
}

// hasFoldedText reports whether text begins with the lower-case letters, in any
// case.
func hasFoldedText(text []byte, letters string) bool {
	if len(text) < len(letters) {
		return false
	}
	for i := range len(letters) {
		if text[i]|0x20 != letters[i] {
			return false
		}
	}
	return true
}

// filterMessage returns the JSON-RPC message, or batch, without the list
// entries that may says no to, and the same slice if there are none. It is not
// ok if text may hold a list and cannot be read.
func filterMessage(text []byte, may func(kind CallKind, name string) bool) (filtered []byte, ok bool) {
	if !mayHoldList(text) {
		return text, true
	}
	message := trimJSON(text)
	if !looksLikeMessage(message) {
		return text, true // no reader takes that for a message
	}
	if !json.Valid(message) {
		return nil, false
	}
	f := messageFilter{text: message, may: may}
	if message[0] == '[' {
		f.elements(0, func(start, _ int) { f.message(start) })
	} else {
		f.message(0)
	}
	if f.cuts == nil {
		return text, true
	}
	return f.result(), true
}

// messageFilter walks over valid JSON and notes what is to be replaced.
type messageFilter struct {
	text []byte
	may  func(kind CallKind, name string) bool
	cuts []cut // in the order of the text
}

// cut stands for one list that gets shorter.
type cut struct {
	start, end int
	kept       [][]byte
}

// message looks at the results of one message. Member names are compared as
// lenient readers do, without case, and each of several counts.
func (f *messageFilter) message(start int) {
	f.members(start, func(name string, start, _ int) {
		if strings.EqualFold(name, "result") {
			f.members(start, f.list)
		}
	})
}

// list filters one member of a result.
func (f *messageFilter) list(name string, start, end int) {
	if f.text[start] != '[' {
		return
	}
	for _, l := range listMembers {
		if !strings.EqualFold(name, l.member) {
			continue
		}
		c, all := cut{start: start, end: end}, true
		f.elements(start, func(start, end int) {
			if f.mayStay(start, l.kind, l.name) {
				c.kept = append(c.kept, f.text[start:end])
			} else {
				all = false
			}
		})
		if !all {
			f.cuts = append(f.cuts, c)
		}
		return
	}
}

// mayStay decides about one entry. One without a name, or with several of which
// not all are allowed, goes.
func (f *messageFilter) mayStay(start int, kind CallKind, nameMember string) bool {
	named, stays := false, true
	f.members(start, func(member string, start, end int) {
		if !strings.EqualFold(member, nameMember) {
			return
		}
		var name string
		if f.text[start] != '"' || json.Unmarshal(f.text[start:end], &name) != nil {
			stays = false
			return
		}
		named = true
		stays = stays && f.may(kind, name)
	})
	return named && stays
}

func (f *messageFilter) result() []byte {
	out := make([]byte, 0, len(f.text))
	done := 0
	for _, c := range f.cuts {
		out = append(out, f.text[done:c.start]...)
		out = append(out, '[')
		out = append(out, bytes.Join(c.kept, []byte{','})...)
		out = append(out, ']')
		done = c.end
	}
	return append(out, f.text[done:]...)
}

// members calls visit with each member of the object at start, and where its
// value begins and ends; for what is no object, not at all.
func (f *messageFilter) members(start int, visit func(name string, start, end int)) {
	if f.text[start] != '{' {
		return
	}
	for i := f.space(start + 1); f.text[i] != '}'; {
		nameEnd := f.valueEnd(i)
		name := string(f.text[i+1 : nameEnd-1])
		if strings.Contains(name, `\`) {
			_ = json.Unmarshal(f.text[i:nameEnd], &name) // valid
		}
		value := f.space(f.space(nameEnd) + 1) // after the colon
		end := f.valueEnd(value)
		visit(name, value, end)
		i = f.next(end)
	}
}

// elements calls visit with each element of the array at start.
func (f *messageFilter) elements(start int, visit func(start, end int)) {
	for i := f.space(start + 1); f.text[i] != ']'; {
		end := f.valueEnd(i)
		visit(i, end)
		i = f.next(end)
	}
}

// next goes from the end of one value to the next, or to the closing bracket.
func (f *messageFilter) next(end int) int {
	if end = f.space(end); f.text[end] == ',' {
		return f.space(end + 1)
	}
	return end
}

func (f *messageFilter) space(i int) int {
	for i < len(f.text) && (f.text[i] == ' ' || f.text[i] == '\t' || f.text[i] == '\r' || f.text[i] == '\n') {
		i++
	}
	return i
}

// valueEnd returns where the value at i ends.
func (f *messageFilter) valueEnd(i int) int {
	depth := 0
	for {
		switch f.text[i] {
		case '"':
			i = f.stringEnd(i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n': // only inside of brackets
			i++
			continue
		default:
			for i < len(f.text) && strings.IndexByte(",:]} \t\r\n", f.text[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

func (f *messageFilter) stringEnd(i int) int {
	for i++; f.text[i] != '"'; i++ {
		if f.text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// Package strictjson reads JSON that came from outside: bounded in size and
// depth, valid UTF-8, nothing after the value, no object with two members of
// one name and no half of a surrogate pair, which different parsers would read
// differently. Of JSON-RPC messages it tells what they ask for, by such rules for
// the part that counts.
package strictjson

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 32

// ErrTooLarge is returned by Read when there is more than the limit.
var ErrTooLarge = errors.New("the JSON document is too large")

// Read reads r, at most limit bytes, into v.
func Read(r io.Reader, limit int64, v any) error {
	limit = min(limit, math.MaxInt64-1)
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return ErrTooLarge
	}
	return Unmarshal(data, v)
}

// Unmarshal checks data with Check and decodes it into v. It is
// json.Unmarshal: the fields of a struct match member names in any case, so a
// type that must match them exactly needs its own UnmarshalJSON, as those of
// package oauth have, or a map.
func Unmarshal(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// Check returns an error that says what is wrong with data, nil if it is one
// well-formed JSON value (RFC 8259) by the rules of this package. Error texts
// name the offset in bytes and never repeat the input.
func Check(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("the JSON document is not valid UTF-8")
	}
	s := scanner{data: data, maxDepth: MaxDepth}
	if err := s.value(0); err != nil {
		return err
	}
	if s.space(); s.pos < len(s.data) {
		return fmt.Errorf("data follows the JSON document at offset %d", s.pos)
	}
	return nil
}

// scanner walks through a document once.
type scanner struct {
	data     []byte
	pos      int
	maxDepth int
	// fold makes names that differ in case only the same.
	fold bool
	// loose lets strings hold half a surrogate pair.
	loose bool
}

func (s *scanner) malformed() error {
	return fmt.Errorf("the JSON document is malformed at offset %d", s.pos)
}

func (s *scanner) tooDeep() error {
	return fmt.Errorf("the JSON document nests deeper than %d levels", s.maxDepth)
}

// space skips the white space of RFC 8259 §2.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next is the byte at the position, 0 at the end; no 0 is valid outside a
// string, nor in one.
func (s *scanner) next() byte {
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// take skips c and reports whether it was there.
func (s *scanner) take(c byte) bool {
	if s.next() != c || s.pos == len(s.data) {
		return false
	}
	s.pos++
	return true
}

// value reads a value inside depth arrays and objects.
func (s *scanner) value(depth int) error {
	s.space()
	switch c := s.next(); c {
	case '{', '[':
		if depth == s.maxDepth {
			return s.tooDeep()
		}
		if c == '{' {
			return s.object(depth + 1)
		}
		return s.array(depth + 1)
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scanner) array(depth int) error {
	s.pos++
	if s.space(); s.take(']') {
		return nil
	}
	for {
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.malformed()
		}
	}
}

func (s *scanner) object(depth int) error {
	s.pos++
	if s.space(); s.take('}') {
		return nil
	}
	seen := make(map[string]struct{})
	for {
		if s.space(); s.next() != '"' {
			return s.malformed()
		}
		start := s.pos
		escaped, err := s.str()
		if err != nil {
			return err
		}
		name := string(s.data[start+1 : s.pos-1])
		if escaped {
			// Two spellings of one name are one name.
			if err := json.Unmarshal(s.data[start:s.pos], &name); err != nil {
				return s.malformed()
			}
		}
		if s.fold {
			name = foldName(name)
		}
		if _, twice := seen[name]; twice {
			return fmt.Errorf("an object has two members of the same name at offset %d", start)
		}
		seen[name] = struct{}{}
		if s.space(); !s.take(':') {
			return s.malformed()
		}
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.malformed()
		}
	}
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if !s.take(word[i]) {
			return s.malformed()
		}
	}
	return nil
}

// number is RFC 8259 §6.
func (s *scanner) number() error {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return s.malformed()
	}
	if s.take('.') && !s.digits() {
		return s.malformed()
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return s.malformed()
		}
	}
	return nil
}

// digits skips digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.pos
	for c := s.next(); '0' <= c && c <= '9'; c = s.next() {
		s.pos++
	}
	return s.pos > start
}

// str reads a string and reports whether it holds an escape.
func (s *scanner) str() (escaped bool, err error) {
	s.pos++
	for {
		s.plain()
		switch s.next() {
		case '"':
			s.pos++
			return escaped, nil
		case '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return false, err
			}
		default: // a control character, or the end
			return false, s.malformed()
		}
	}
}

// plain skips the characters that stand for themselves, eight bytes at a time:
// most of a large document is text.
func (s *scanner) plain() {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for len(s.data)-s.pos >= 8 {
		word := binary.LittleEndian.Uint64(s.data[s.pos:])
		// The top bit of a byte becomes set if it is below 0x20, a quote, a backslash;
		// for a byte above 0x7f it does not. The lowest one that is set is right.
		quote, backslash := word^(ones*'"'), word^(ones*'\\')
		special := ((word-ones*0x20)&^word | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
		if special != 0 {
			s.pos += bits.TrailingZeros64(special) / 8
			return
		}
		s.pos += 8
	}
	for s.pos < len(s.data) && s.data[s.pos] >= 0x20 && s.data[s.pos] != '"' && s.data[s.pos] != '\\' {
		s.pos++
	}
}

// escape reads one escape, or two that are a surrogate pair (RFC 8259 §7).
// What half a pair stands for is left open there (§8.2), and so readers differ.
func (s *scanner) escape() error {
	s.pos++
	switch s.next() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		s.pos++
	default:
		return s.malformed()
	}
	unit, ok := s.hex4()
	switch {
	case !ok:
		return s.malformed()
	case unit < 0xd800 || unit > 0xdfff, s.loose:
		return nil
	case unit >= 0xdc00 || !s.take('\\') || !s.take('u'):
		return s.halfPair()
	}
	if low, ok := s.hex4(); !ok {
		return s.malformed()
	} else if low < 0xdc00 || low > 0xdfff {
		return s.halfPair()
	}
	return nil
}

func (s *scanner) halfPair() error {
	return fmt.Errorf("a string holds half a surrogate pair at offset %d", s.pos)
}

// hex4 reads four hexadecimal digits.
func (s *scanner) hex4() (n int, ok bool) {
	for range 4 {
		c := s.next()
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | int(c-'a'+10)
		case 'A' <= c && c <= 'F':
			n = n<<4 | int(c-'A'+10)
		default:
			return 0, false
		}
		s.pos++
	}
	return n, true
}

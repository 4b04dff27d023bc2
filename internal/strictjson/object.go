package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Object reads data, which must be an object by the rules of Check, into what
// encoding/json would make of it with UseNumber, in one pass.
func Object(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the JSON document is not valid UTF-8")
	}
	r := reader{scanner: scanner{data: data, maxDepth: MaxDepth}, text: string(data)}
	if r.space(); r.next() != '{' {
		if err := r.scanner.value(0); err != nil {
			return nil, err
		}
		return nil, errors.New("the JSON document is no object")
	}
	// No object has more members than there are colons.
	object, err := r.readObject(1, min(bytes.Count(data, []byte(":")), 32))
	if err != nil {
		return nil, err
	}
	if r.space(); r.pos < len(r.data) {
		return nil, fmt.Errorf("data follows the JSON document at offset %d", r.pos)
	}
	return object, nil
}

// reader is a scanner that keeps what it sees.
type reader struct {
	scanner
	// text is data. Strings without escapes are parts of it.
	text string
}

func (r *reader) readValue(depth int) (any, error) {
	r.space()
	start := r.pos
	switch c := r.next(); c {
	case '{', '[':
		if depth == r.maxDepth {
			return nil, r.tooDeep()
		}
		if c == '{' {
			return r.readObject(depth+1, 0)
		}
		return r.readArray(depth + 1)
	case '"':
		return r.readString()
	case 't':
		return true, r.literal("true")
	case 'f':
		return false, r.literal("false")
	case 'n':
		return nil, r.literal("null")
	}
	if err := r.number(); err != nil {
		return nil, err
	}
	return json.Number(r.text[start:r.pos]), nil
}

func (r *reader) readArray(depth int) (any, error) {
	r.pos++
	array := []any{}
	if r.space(); r.take(']') {
		return array, nil
	}
	for {
		element, err := r.readValue(depth)
		if err != nil {
			return nil, err
		}
		array = append(array, element)
		if r.space(); r.take(']') {
			return array, nil
		}
		if !r.take(',') {
			return nil, r.malformed()
		}
	}
}

func (r *reader) readObject(depth, size int) (map[string]any, error) {
	r.pos++
	object := make(map[string]any, size)
	if r.space(); r.take('}') {
		return object, nil
	}
	for {
		if r.space(); r.next() != '"' {
			return nil, r.malformed()
		}
		start := r.pos
		name, err := r.readString()
		if err != nil {
			return nil, err
		}
		if r.space(); !r.take(':') {
			return nil, r.malformed()
		}
		value, err := r.readValue(depth)
		if err != nil {
			return nil, err
		}
		count := len(object)
		if object[name] = value; len(object) == count {
			return nil, fmt.Errorf("an object has two members of the same name at offset %d", start)
		}
		if r.space(); r.take('}') {
			return object, nil
		}
		if !r.take(',') {
			return nil, r.malformed()
		}
	}
}

func (r *reader) readString() (string, error) {
	start := r.pos
	escaped, err := r.str()
	if err != nil {
		return "", err
	}
	if !escaped {
		return r.text[start+1 : r.pos-1], nil
	}
	var s string
	if err := json.Unmarshal(r.data[start:r.pos], &s); err != nil {
		return "", r.malformed()
	}
	return s, nil
}

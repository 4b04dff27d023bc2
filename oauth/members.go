package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
)

// member ties a JSON member to the field that holds it. A table of members
// both writes and reads a document, so that names are matched exactly
// (encoding/json folds case), order is fixed, and what is unknown is kept.
type member struct {
	name     string
	field    any // a pointer
	required bool
	// always writes the member even when the field is its zero value.
	always bool
}

// marshalMembers writes the members in their order, without those that are
// zero, then the extra ones sorted by name.
func marshalMembers(members []member, extra map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	write := func(name string, value any) error {
		encoded, err := marshalUnescaped(value)
		if err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		key, err := marshalUnescaped(name)
		if err != nil {
			return err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(encoded)
		return nil
	}
	known := make(map[string]bool, len(members))
	for _, m := range members {
		known[m.name] = true
		value := reflect.ValueOf(m.field).Elem()
		if value.IsZero() && !m.always || value.Kind() == reflect.Slice && value.Len() == 0 && !m.always {
			continue
		}
		if err := write(m.name, value.Interface()); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if known[name] {
			continue
		}
		if err := write(name, extra[name]); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// unmarshalMembers reads a JSON object into the members' fields and returns
// the members that are not in the table. null counts as absent (clients send
// it for what they leave out). A member of the wrong type is an error that
// names it.
func unmarshalMembers(data []byte, members []member) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, fmt.Errorf("a JSON object is needed, not null")
	}
	for _, m := range members {
		raw, ok := object[m.name]
		delete(object, m.name)
		if !ok || string(raw) == "null" {
			if m.required {
				return nil, fmt.Errorf("member %s is required", m.name)
			}
			continue
		}
		if err := unmarshalMember(raw, m.field); err != nil {
			return nil, fmt.Errorf("member %s must be %s", m.name, describeType(reflect.TypeOf(m.field).Elem()))
		}
	}
	if len(object) == 0 {
		object = nil
	}
	return object, nil
}

// unmarshalMember is json.Unmarshal, except that null is no string in an array
// of strings (encoding/json makes "" of it), and that a whole number may be
// written with fraction or exponent: servers send times as floats.
func unmarshalMember(raw json.RawMessage, field any) error {
	switch field := field.(type) {
	case *[]string:
		var values []*string
		if err := json.Unmarshal(raw, &values); err != nil {
			return err
		}
		*field = make([]string, len(values))
		for i, value := range values {
			if value == nil {
				return errors.New("null in an array of strings")
			}
			(*field)[i] = *value
		}
		return nil
	case *int64:
		var number float64
		if err := json.Unmarshal(raw, &number); err != nil {
			return err
		}
		if math.Abs(number) > maxSafeInteger {
			return errors.New("out of range")
		}
		*field = int64(number)
		return nil
	}
	return json.Unmarshal(raw, field)
}

// maxSafeInteger is the largest number up to which a JSON reader that uses
// IEEE 754 doubles knows every integer (RFC 8259 §6).
const maxSafeInteger = 1<<53 - 1

func describeType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "an array of strings"
		}
		return "a JSON value"
	default:
		return "a JSON value"
	}
}

// marshalUnescaped is json.Marshal without the escaping of <, > and &, which
// is meant for HTML and makes URLs in metadata hard to read.
func marshalUnescaped(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

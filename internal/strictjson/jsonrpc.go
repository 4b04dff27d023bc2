package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxMessageDepth is how deep arrays and objects of a JSON-RPC message may nest.
const MaxMessageDepth = 256

// MaxBatch is how many messages a batch may hold.
const MaxBatch = 100

// MaxSubscriptions is how many resources one message may subscribe to.
const MaxSubscriptions = 1000

// Message is one JSON-RPC message of MCP, as far as a policy reads it. Strings
// are decoded, and are to be compared byte for byte.
type Message struct {
	// Method is "" for a response, and for nothing else.
	Method string
	// Request tells that an answer is expected: there is an id other than null.
	Request bool
	// Name is params.name of tools/call and prompts/get, never empty there, and
	// the prompt that completion/complete refers to. For other methods it is
	// params.name if that is a string.
	Name string
	// URI is params.uri of resources/read, resources/subscribe and
	// resources/unsubscribe, never empty there, and the resource that
	// completion/complete refers to. For other methods it is params.uri if that is
	// a string.
	URI string
	// Subscriptions are the resources that subscriptions/listen asks for.
	Subscriptions []string
	// TaskID is params.taskId if that is a string.
	TaskID string
	// Arguments is the value of params.arguments, a part of the input; nil if
	// there is none.
	Arguments []byte
}

// AppendMessages reads a JSON-RPC message, or a batch of them (JSON-RPC 2.0 §6,
// MCP until 2025-03-26), and appends them to messages. It refuses whatever two
// parsers might read differently where a policy looks: in a message, in its
// params and in what these refer to
//
//   - two members of one name, of those that matter
//   - a name that differs from one of these in case only, by any rule of case
//   - a control character in a name, in the method, the name and the URI
//   - half of a surrogate pair there
//
// With strictArguments the same holds for all of params.arguments, whatever the
// names are. Everything else is read by the rules of this package, except that
// objects further in may have members twice, strings there may hold half a
// surrogate pair, and MaxMessageDepth is the bound.
//
// Error texts say what to change and never repeat the input.
func AppendMessages(messages []Message, data []byte, strictArguments bool) (_ []Message, batch bool, err error) {
	if !utf8.Valid(data) {
		return messages, false, errors.New("the JSON document is not valid UTF-8")
	}
	s := messageScanner{scanner: scanner{data: data, maxDepth: MaxMessageDepth}, strictArguments: strictArguments}
	s.space()
	if s.next() == '[' {
		batch = true
		messages, err = s.batch(messages)
	} else {
		var m Message
		m, err = s.message(0)
		messages = append(messages, m)
	}
	if err != nil {
		return messages, batch, err
	}
	if s.space(); s.pos < len(s.data) {
		return messages, batch, fmt.Errorf("data follows the JSON document at offset %d", s.pos)
	}
	return messages, batch, nil
}

// messageScanner reads JSON-RPC messages.
type messageScanner struct {
	scanner
	strictArguments bool
	// params are those of the message that was read last.
	params members
}

func (s *messageScanner) batch(messages []Message) ([]Message, error) {
	s.pos++
	if s.space(); s.take(']') {
		return messages, errors.New("the JSON-RPC batch is empty")
	}
	for n := 0; ; n++ {
		if n == MaxBatch {
			return messages, fmt.Errorf("the JSON-RPC batch holds more than %d messages", MaxBatch)
		}
		m, err := s.message(1)
		if err != nil {
			return messages, err
		}
		messages = append(messages, m)
		s.space()
		if s.take(']') {
			return messages, nil
		}
		if !s.take(',') {
			return messages, s.malformed()
		}
	}
}

// member is a member of the objects that a policy reads.
type member int

const (
	otherMember member = iota
	jsonrpcMember
	idMember
	methodMember
	paramsMember
	resultMember
	errorMember
	nameMember
	uriMember
	argumentsMember
	refMember
	typeMember
	taskIDMember
	notificationsMember
	subscriptionsMember
	memberCount
)

// guarded are the members that may stand once and in one spelling only.
var guarded = [memberCount]string{
	jsonrpcMember: "jsonrpc", idMember: "id", methodMember: "method", paramsMember: "params", resultMember: "result",
	errorMember: "error", nameMember: "name", uriMember: "uri", argumentsMember: "arguments", refMember: "ref",
	typeMember: "type", taskIDMember: "taskId", notificationsMember: "notifications",
	subscriptionsMember: "resourceSubscriptions",
}

func memberOf(name []byte) member {
	switch string(name) {
	case "jsonrpc":
		return jsonrpcMember
	case "id":
		return idMember
	case "method":
		return methodMember
	case "params":
		return paramsMember
	case "result":
		return resultMember
	case "error":
		return errorMember
	case "name":
		return nameMember
	case "uri":
		return uriMember
	case "arguments":
		return argumentsMember
	case "ref":
		return refMember
	case "type":
		return typeMember
	case "taskId":
		return taskIDMember
	case "notifications":
		return notificationsMember
	case "resourceSubscriptions":
		return subscriptionsMember
	}
	return otherMember
}

// members are the values of an object's members as they stand in the input; nil
// for those that it lacks.
type members [memberCount][]byte

// members reads an object in depth arrays and objects. In a message it reads
// the params as well.
func (s *messageScanner) members(depth int, inMessage bool) (found members, err error) {
	if !s.take('{') {
		return found, fmt.Errorf("a JSON object is expected at offset %d", s.pos)
	}
	if s.space(); s.take('}') {
		return found, nil
	}
	for {
		s.space()
		start := s.pos
		name, err := s.memberName()
		if err != nil {
			return found, err
		}
		if name != otherMember && found[name] != nil {
			return found, fmt.Errorf("an object has the member %s twice, at offset %d", guarded[name], start)
		}
		if s.space(); !s.take(':') {
			return found, s.malformed()
		}
		s.space()
		start = s.pos
		switch {
		case name == paramsMember && inMessage && s.next() == '{':
			s.params, err = s.members(depth+1, false)
		case name == argumentsMember && !inMessage && s.strictArguments:
			err = s.strictValue(depth + 1)
		default:
			err = s.skip(depth + 1)
		}
		if err != nil {
			return found, err
		}
		if name != otherMember {
			found[name] = s.data[start:s.pos]
		}
		s.space()
		if s.take('}') {
			return found, nil
		}
		if !s.take(',') {
			return found, s.malformed()
		}
	}
}

// memberName reads the name of a member.
func (s *messageScanner) memberName() (member, error) {
	if s.next() != '"' {
		return otherMember, s.malformed()
	}
	start := s.pos
	escaped, err := s.str()
	if err != nil {
		return otherMember, err
	}
	name := s.data[start+1 : s.pos-1]
	if escaped {
		decoded, err := text(s.data[start:s.pos])
		if err != nil {
			return otherMember, fmt.Errorf("the name of a member at offset %d %w", start, err)
		}
		name = []byte(decoded)
	}
	m := memberOf(name)
	if m == otherMember {
		for _, guarded := range guarded[1:] {
			if equalFold(name, guarded) {
				return otherMember, fmt.Errorf("write the name of the member at offset %d as %s", start, guarded)
			}
		}
	}
	return m, nil
}

// strictValue reads a value whose objects have no two members of one name, in
// any case.
func (s *messageScanner) strictValue(depth int) error {
	inner := s.scanner
	inner.fold = true
	err := inner.value(depth)
	s.pos = inner.pos
	return err
}

// skip reads a value in depth arrays and objects that no policy looks into.
func (s *scanner) skip(depth int) error {
	c := s.next()
	if c != '{' && c != '[' {
		s.loose = true
		err := s.value(depth)
		s.loose = false
		return err
	}
	if depth == s.maxDepth {
		return s.tooDeep()
	}
	end := c + 2 // ] follows [ by two in ASCII, and so does } on {
	s.pos++
	if s.space(); s.take(end) {
		return nil
	}
	for {
		if c == '{' {
			if s.space(); s.next() != '"' {
				return s.malformed()
			}
			if err := s.skip(depth); err != nil {
				return err
			}
			if s.space(); !s.take(':') {
				return s.malformed()
			}
		}
		s.space()
		if err := s.skip(depth + 1); err != nil {
			return err
		}
		s.space()
		if s.take(end) {
			return nil
		}
		if !s.take(',') {
			return s.malformed()
		}
	}
}

// text decodes a string that is compared. The error is to be read after the
// name of what it is.
func text(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", errNoString
	}
	inner := value[1 : len(value)-1]
	escaped := false
	for _, c := range inner {
		escaped = escaped || c == '\\'
		if c == 0x7f {
			return "", errControl
		}
	}
	if !escaped {
		return string(inner), nil
	}
	s := scanner{data: value}
	if _, err := s.str(); err != nil {
		return "", errHalfPair
	}
	var decoded string
	if err := json.Unmarshal(value, &decoded); err != nil {
		return "", errNoString
	}
	for i := range len(decoded) {
		if decoded[i] < 0x20 || decoded[i] == 0x7f {
			return "", errControl
		}
	}
	return decoded, nil
}

// These are to be read after the name of what is wrong.
var (
	errNoString = errors.New("is not a string")
	errHalfPair = errors.New("holds half a surrogate pair")
	errControl  = errors.New("holds a control character")
)

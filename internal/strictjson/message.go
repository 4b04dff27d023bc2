package strictjson

import (
	"errors"
	"fmt"
)

// message reads one message in depth arrays.
func (s *messageScanner) message(depth int) (m Message, err error) {
	s.space()
	s.params = members{}
	found, err := s.members(depth, true)
	if err != nil {
		return m, err
	}
	if string(found[jsonrpcMember]) != `"2.0"` {
		return m, errors.New("a JSON-RPC message lacks the member jsonrpc with the value 2.0")
	}
	if found[methodMember] == nil {
		if found[resultMember] == nil && found[errorMember] == nil {
			return m, errors.New("a JSON-RPC message has neither method nor result nor error")
		}
		return m, nil
	}
	m.Request = found[idMember] != nil && string(found[idMember]) != "null"
	if m.Method = wellKnownMethod(found[methodMember]); m.Method == "" {
		if m.Method, err = named("method", found[methodMember]); err != nil {
			return m, err
		}
	}
	if value := found[paramsMember]; value != nil && value[0] != '{' && string(value) != "null" {
		return m, errors.New("params is not an object")
	}
	return m, m.setParams(&s.params)
}

// wellKnownMethod spares the copy for the methods that are called most.
func wellKnownMethod(value []byte) string {
	switch string(value) {
	case `"tools/call"`:
		return "tools/call"
	case `"tools/list"`:
		return "tools/list"
	case `"resources/read"`:
		return "resources/read"
	case `"prompts/get"`:
		return "prompts/get"
	}
	return ""
}

// setParams takes over what the method's params name.
func (m *Message) setParams(params *members) (err error) {
	m.Arguments = params[argumentsMember]
	m.TaskID, _ = text(params[taskIDMember])
	switch m.Method {
	case "tools/call", "prompts/get":
		m.Name, err = named("params.name", params[nameMember])
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		m.URI, err = named("params.uri", params[uriMember])
	case "completion/complete":
		err = m.setReference(params[refMember])
	case "subscriptions/listen":
		err = m.setSubscriptions(params[notificationsMember])
	default:
		m.Name, _ = text(params[nameMember])
		m.URI, _ = text(params[uriMember])
	}
	return err
}

// setReference takes over what a completion is for.
func (m *Message) setReference(value []byte) error {
	s := messageScanner{scanner: scanner{data: value, maxDepth: MaxMessageDepth}}
	ref, err := s.members(0, false)
	if err != nil {
		return fmt.Errorf("params.ref: %w", err)
	}
	kind, err := named("params.ref.type", ref[typeMember])
	switch {
	case err != nil:
		return err
	case kind == "ref/prompt" && ref[uriMember] == nil:
		m.Name, err = named("params.ref.name", ref[nameMember])
	case kind == "ref/resource" && ref[nameMember] == nil:
		m.URI, err = named("params.ref.uri", ref[uriMember])
	default:
		err = errors.New("params.ref is neither a ref/prompt with a name nor a ref/resource with a uri")
	}
	return err
}

// setSubscriptions takes over the resources of subscriptions/listen
// (MCP 2026-07-28, subscriptions).
func (m *Message) setSubscriptions(value []byte) error {
	if value == nil || string(value) == "null" {
		return nil
	}
	s := messageScanner{scanner: scanner{data: value, maxDepth: MaxMessageDepth}}
	notifications, err := s.members(0, false)
	if err != nil {
		return fmt.Errorf("params.notifications: %w", err)
	}
	list := notifications[subscriptionsMember]
	if list == nil || string(list) == "null" {
		return nil
	}
	s = messageScanner{scanner: scanner{data: list, maxDepth: MaxMessageDepth}}
	if !s.take('[') {
		return errors.New("params.notifications.resourceSubscriptions is not an array")
	}
	if s.space(); s.take(']') {
		return nil
	}
	for {
		if len(m.Subscriptions) == MaxSubscriptions {
			return fmt.Errorf("params.notifications.resourceSubscriptions holds more than %d elements", MaxSubscriptions)
		}
		s.space()
		start := s.pos
		if err := s.skip(0); err != nil {
			return err
		}
		uri, err := named("an element of params.notifications.resourceSubscriptions", s.data[start:s.pos])
		if err != nil {
			return err
		}
		m.Subscriptions = append(m.Subscriptions, uri)
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.malformed()
		}
	}
}

// named decodes a string that must be there and not be empty.
func named(what string, value []byte) (string, error) {
	if value == nil {
		return "", fmt.Errorf("%s is missing", what)
	}
	decoded, err := text(value)
	if err != nil {
		return "", fmt.Errorf("%s %w", what, err)
	}
	if decoded == "" {
		return "", fmt.Errorf("%s is empty", what)
	}
	return decoded, nil
}

package mcpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// Expression is a condition in the Common Expression Language (CEL). Placeholders
// in it are not replaced: its braces are CEL's.
//
// It may use, besides CEL's own functions and those of its extensions strings,
// lists, math and bindings:
//
// - `method` (string): the JSON-RPC method
// - `name` (string): the name of the tool or the prompt, else ""
// - `tool` (string): the name of the tool of tools/call, else ""
// - `uri` (string): the URI of the resource, else ""
// - `arguments` (map): the arguments of the tool or prompt
// - `user` (string), `client` (string), `scopes` (list), `claims` (map): what the token says
// - `email` (string): the claim email if email_verified is true, else ""
// - `groups` (list): the claim groups
type Expression string

// expressionCost bounds what one evaluation may cost, in CEL's units: some
// milliseconds, lists of some 2 000 elements. The library's own accounts take
// time that grows with the square of it.
const expressionCost = 10_000

// maxExpression bounds the size of an expression, in bytes.
const maxExpression = 16 << 10

// condition is a compiled Expression.
type condition struct {
	program        cel.Program
	readsArguments bool
	// claims are those that the expression reads through email and groups.
	claims []string
}

// compile checks the expression. Its error points to the place in it.
func (e Expression) compile() (*condition, error) {
	if len(e) > maxExpression {
		return nil, fmt.Errorf("when: the expression has %d bytes, more than %d", len(e), maxExpression)
	}
	text, list, object := cel.StringType, cel.ListType(cel.StringType), cel.MapType(cel.StringType, cel.DynType)
	env, err := cel.NewEnv(
		cel.Variable("method", text), cel.Variable("name", text), cel.Variable("tool", text), cel.Variable("uri", text),
		cel.Variable("arguments", object),
		cel.Variable("user", text), cel.Variable("client", text), cel.Variable("scopes", list), cel.Variable("claims", object),
		cel.Variable("email", text), cel.Variable("groups", list),
		cel.CrossTypeNumericComparisons(true),
		ext.Strings(), ext.Lists(), ext.Math(), ext.Bindings(),
	)
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(string(e))
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("when: line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, first.Message)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("when: the expression is of type %s; write one that is true or false", checked.OutputType())
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(expressionCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("when: %w", err)
	}
	c := &condition{program: program}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		switch reference.Name {
		case "arguments":
			c.readsArguments = true
		case "email":
			c.claims = append(c.claims, "email", "email_verified")
		case "groups":
			c.claims = append(c.claims, "groups")
		}
	}
	return c, nil
}

// permits is for bearer.Policy's When.
func (c *condition) permits(ctx context.Context, call *bearer.Call) (bool, error) {
	variables := &callVariables{call: call}
	if c.readsArguments {
		var err error
		if variables.arguments, err = decodeArguments(call.Arguments); err != nil {
			return false, err
		}
	}
	result, _, err := c.program.ContextEval(ctx, variables)
	if err != nil {
		return false, err
	}
	permitted, ok := result.Value().(bool)
	if !ok {
		return false, errors.New("the expression is neither true nor false")
	}
	return permitted, nil
}

// decodeArguments keeps numbers in their own digits, so that CEL has integers
// that are exact. The guard has seen that nothing is there twice.
func decodeArguments(data json.RawMessage) (map[string]any, error) {
	arguments := map[string]any{}
	if data == nil {
		return arguments, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&arguments); err != nil {
		return nil, errors.New("the arguments are not a JSON object")
	}
	return arguments, nil
}

// callVariables looks up what an expression names, and nothing else.
type callVariables struct {
	call      *bearer.Call
	arguments map[string]any
}

// ResolveName implements interpreter.Activation.
func (v *callVariables) ResolveName(name string) (any, bool) {
	call := v.call
	switch name {
	case "method":
		return call.Method, true
	case "name":
		return call.Name, true
	case "tool":
		if call.Method == string(bearer.ToolCall) {
			return call.Name, true
		}
		return "", true
	case "uri":
		return call.URI, true
	case "arguments":
		return v.arguments, true
	case "user":
		return call.Info.UserID, true
	case "client":
		return call.Info.ClientID, true
	case "scopes":
		return call.Info.Scopes, true
	case "claims":
		return call.Info.Extra, true
	case "email":
		return verifiedEmail(call.Info.Extra), true
	case "groups":
		return textClaims(call.Info.Extra["groups"]), true
	}
	return nil, false
}

// Parent implements interpreter.Activation.
func (v *callVariables) Parent() interpreter.Activation { return nil }

// verifiedEmail is the claim email if whoever issued the token vouches for it.
func verifiedEmail(claims map[string]any) string {
	if verified := claims["email_verified"]; verified != true && verified != "true" {
		return ""
	}
	email, _ := claims["email"].(string)
	return email
}

// textClaims is a claim that is a string or a list of strings.
func textClaims(claim any) []string {
	switch value := claim.(type) {
	case string:
		if value != "" {
			return []string{value}
		}
	case []string:
		return value
	case []any:
		texts := make([]string, 0, len(value))
		for _, element := range value {
			if text, ok := element.(string); ok && strings.TrimSpace(text) != "" {
				texts = append(texts, text)
			}
		}
		return texts
	}
	return nil
}

// Interface guards
var _ interpreter.Activation = (*callVariables)(nil)

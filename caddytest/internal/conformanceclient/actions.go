package main

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// action is what the program does with the server.
type action func(ctx context.Context, s *mcp.ClientSession, g *given) error

// actionFor returns what the suite wants to see; of scenarios without an entry
// that is a list of the tools and a call of each.
func actionFor(scenario string) action {
	switch scenario {
	case "initialize", "request-metadata", "json-schema-ref-no-deref":
		return list
	case "tools_call":
		return func(ctx context.Context, s *mcp.ClientSession, _ *given) error {
			return call(ctx, s, "add_numbers", map[string]any{"a": 5, "b": 3})
		}
	case "elicitation-sep1034-client-defaults":
		return callOne("test_client_elicitation_defaults")
	case "sse-retry":
		return callOne("test_reconnection")
	case "sep-2322-client-request-state":
		return func(ctx context.Context, s *mcp.ClientSession, _ *given) error {
			for _, name := range []string{"test_mrtr_echo_state", "test_mrtr_no_state", "test_mrtr_unrelated", "test_mrtr_no_result_type"} {
				say(call(ctx, s, name, nil)) // one of them is not valid
			}
			return nil
		}
	case "http-standard-headers":
		return eachKind
	case "http-custom-headers":
		return givenCalls
	case "http-invalid-tool-headers":
		return func(ctx context.Context, s *mcp.ClientSession, _ *given) error {
			return callAll(ctx, s, map[string]any{"region": "us-west1"}, say)
		}
	case "json-schema-2020-12-preservation":
		return echoSchema
	}
	return func(ctx context.Context, s *mcp.ClientSession, _ *given) error {
		var first error
		err := callAll(ctx, s, nil, func(err error) {
			if first == nil {
				first = err
			}
		})
		if err != nil {
			return err
		}
		return first
	}
}

// say logs an error that the scenario provokes.
func say(err error) {
	if err != nil {
		log.Print(err)
	}
}

func list(ctx context.Context, s *mcp.ClientSession, _ *given) error {
	_, err := s.ListTools(ctx, nil)
	return err
}

func call(ctx context.Context, s *mcp.ClientSession, name string, arguments map[string]any) error {
	if arguments == nil {
		arguments = map[string]any{}
	}
	if _, err := s.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments}); err != nil {
		return fmt.Errorf("tool %s: %w", name, err)
	}
	return nil
}

func callOne(name string) action {
	return func(ctx context.Context, s *mcp.ClientSession, g *given) error {
		if err := list(ctx, s, g); err != nil {
			return err
		}
		return call(ctx, s, name, nil)
	}
}

func callAll(ctx context.Context, s *mcp.ClientSession, arguments map[string]any, failed func(error)) error {
	tools, err := s.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	for _, tool := range tools.Tools {
		failed(call(ctx, s, tool.Name, arguments))
	}
	return nil
}

// eachKind sends one request of each kind that bears a name.
func eachKind(ctx context.Context, s *mcp.ClientSession, _ *given) error {
	tools, err := s.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	for _, tool := range tools.Tools[:min(1, len(tools.Tools))] {
		say(call(ctx, s, tool.Name, nil))
	}
	resources, err := s.ListResources(ctx, nil)
	if err != nil {
		return err
	}
	for _, resource := range resources.Resources[:min(1, len(resources.Resources))] {
		_, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: resource.URI})
		say(err)
	}
	prompts, err := s.ListPrompts(ctx, nil)
	if err != nil {
		return err
	}
	for _, prompt := range prompts.Prompts[:min(1, len(prompts.Prompts))] {
		_, err := s.GetPrompt(ctx, &mcp.GetPromptParams{Name: prompt.Name, Arguments: map[string]string{}})
		say(err)
	}
	return nil
}

func givenCalls(ctx context.Context, s *mcp.ClientSession, g *given) error {
	if err := list(ctx, s, g); err != nil {
		return err
	}
	for _, c := range g.ToolCalls {
		say(call(ctx, s, c.Name, c.Arguments))
	}
	return nil
}

// echoSchema sends a schema back as it came.
func echoSchema(ctx context.Context, s *mcp.ClientSession, _ *given) error {
	tools, err := s.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tools.Tools, func(t *mcp.Tool) bool { return t.Name == "json_schema_2020_12_tool" })
	if i < 0 {
		return fmt.Errorf("there is no tool json_schema_2020_12_tool")
	}
	return call(ctx, s, "json_schema_echo", map[string]any{"schema": tools.Tools[i].InputSchema})
}

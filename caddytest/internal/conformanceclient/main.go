// Command conformanceclient is the MCP client that the client leg of the
// official conformance suite runs: the go-sdk's client, over a transport of
// authclient.
//
//	conformanceclient <server URL>
//
// The suite says what it wants to see in MCP_CONFORMANCE_SCENARIO, and gives
// credentials and calls as JSON in MCP_CONFORMANCE_CONTEXT. The exit status is
// not 0 if the scenario came to no end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// given is MCP_CONFORMANCE_CONTEXT.
type given struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Issuer       string `json:"issuer"`

	PrivateKeyPEM    string `json:"private_key_pem"`
	SigningAlgorithm string `json:"signing_algorithm"`

	IDPClientID      string `json:"idp_client_id"`
	IDPIDToken       string `json:"idp_id_token"`
	IDPTokenEndpoint string `json:"idp_token_endpoint"`

	ValidJWT string `json:"valid_jwt"`

	ToolCalls []struct {
		Name      string         `json:"name"`
		Arguments map[string]any `json:"arguments"`
	} `json:"toolCalls"`
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) != 2 {
		return errors.New("usage: conformanceclient <server URL>")
	}
	server, scenario := os.Args[1], os.Getenv("MCP_CONFORMANCE_SCENARIO")
	var g given
	if context := os.Getenv("MCP_CONFORMANCE_CONTEXT"); context != "" {
		if err := json.Unmarshal([]byte(context), &g); err != nil {
			return fmt.Errorf("MCP_CONFORMANCE_CONTEXT: %w", err)
		}
	}
	client := http.DefaultClient
	if strings.HasPrefix(scenario, "auth/") {
		provider, err := providerFor(scenario, &g)
		if err != nil {
			return err
		}
		transport, err := authclient.WithOAuth(provider, server, authclient.TransportOptions{})
		if err != nil {
			return err
		}
		client = &http.Client{Transport: transport}
	}
	session, err := connect(ctx, client, server)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	return actionFor(scenario)(ctx, session, &g)
}

func connect(ctx context.Context, client *http.Client, server string) (*mcp.ClientSession, error) {
	c := mcp.NewClient(&mcp.Implementation{Name: "mcpauth-conformance-client", Version: "1.0.0"}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{Elicitation: &mcp.ElicitationCapabilities{}},
		// A person who takes what the form proposes.
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{}}, nil
		},
	})
	return c.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: server, HTTPClient: client}, nil)
}

package oauth

import (
	"maps"
	"slices"
)

// clientSets returns the redirect URIs of known MCP clients, as patterns of
// RedirectPolicy. Loopback URIs are listed for the reader: they are always
// allowed, with any port. Private-use schemes are subject to NoPrivateSchemes.
func clientSets() map[string][]string {
	return map[string][]string{
		// claude.ai, mobile and Desktop connectors: the fixed callback and the one
		// it may move to, https://support.claude.com/en/articles/11503834.
		// Code: https://github.com/anthropics/claude-code/issues/42301.
		// Desktop app: https://github.com/RevenueCat/ai-toolkit/issues/58.
		"claude": {
			"https://claude.ai/api/mcp/auth_callback",
			"https://claude.com/api/mcp/auth_callback",
			"claude://claude.ai/mcp-auth-callback/sdk",
			"http://localhost/callback",
		},
		// One path per connector, and the fixed one of before:
		// https://platform.openai.com/docs/, Apps SDK, Authentication.
		"chatgpt": {
			"https://chatgpt.com/connector/oauth/*",
			"https://chatgpt.com/connector_platform_oauth_redirect",
		},
		// https://github.com/openai/codex/issues/30460: a path per server.
		"codex": {
			"http://127.0.0.1/callback/*",
		},
		// Often all three in one registration, https://cursor.com/docs/mcp.
		"cursor": {
			"https://www.cursor.com/agents/mcp/oauth/callback",
			"https://cursor.com/agents/mcp/oauth/callback",
			"cursor://anysphere.cursor-mcp/oauth/callback",
			"http://localhost:8787/callback",
		},
		// Visual Studio Code and GitHub Copilot in it,
		// https://github.com/microsoft/vscode/issues/278512.
		"vscode": {
			"https://vscode.dev/redirect",
			"https://insiders.vscode.dev/redirect",
			"http://127.0.0.1:33418/",
			"http://localhost:33418/",
		},
		// https://github.com/modelcontextprotocol/inspector
		"inspector": {
			"http://localhost:6274/oauth/callback",
			"http://localhost:6274/oauth/callback/debug",
		},
		// https://github.com/geelen/mcp-remote/issues/72
		"mcp-remote": {
			"http://localhost:3334/oauth/callback",
		},
		// A random loopback port, https://github.com/block/goose/issues/5107.
		"goose": {
			"http://localhost/oauth_callback",
		},
		// Gemini CLI, https://github.com/google-gemini/gemini-cli/issues/14419,
		// and the hosted one, which has a path per project.
		"gemini": {
			"http://localhost:7777/oauth/callback",
			"https://oauth-redirect.googleusercontent.com/r/*",
		},
		// A path per tool, https://github.com/SmartBear/smartbear-mcp/issues/463.
		"copilot-studio": {
			"https://global.consent.azure-apim.net/redirect",
			"https://global.consent.azure-apim.net/redirect/*",
		},
		// Le Chat.
		"mistral": {
			"https://callback.mistral.ai/v1/integrations_auth/oauth2_callback",
		},
		// https://github.com/homeassistant-ai/ha-mcp/issues/743: custom connectors.
		"perplexity": {
			"https://www.perplexity.ai/rest/connections/oauth_callback",
			"https://enterprise.perplexity.ai/rest/connections/oauth_callback",
			"https://www.perplexity.com/rest/connections/oauth_callback",
			"https://enterprise.perplexity.com/rest/connections/oauth_callback",
		},
		// Little is public: its own scheme, and loopback.
		"zed": {
			"zed://*",
			"http://127.0.0.1/*",
		},
		// https://opencode.ai/oauth/opencode/client.json
		"opencode": {
			"http://127.0.0.1:19876/mcp/oauth/callback",
		},
		// n8n Cloud; a self-hosted n8n needs its own pattern.
		"n8n": {
			"https://oauth.n8n.cloud/oauth2/callback",
		},
		// Little is public: its own scheme, and loopback.
		"windsurf": {
			"windsurf://*",
		},
	}
}

// ClientSetNames returns the names that RedirectPolicy.ClientSets knows, sorted.
func ClientSetNames() []string {
	return slices.Sorted(maps.Keys(clientSets()))
}

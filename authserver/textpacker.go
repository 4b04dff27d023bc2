package authserver

import "slices"

// textPacker shortens texts by a dictionary. In a packed text a byte from 0x80
// up stands for a word of the dictionary; a text that is not ASCII is kept as
// it is behind a NUL, which no text holds.
type textPacker struct {
	words  []string
	byHead [0x80][]packedWord // by first byte, the longest first
}

type packedWord struct {
	text string
	code byte
}

// packedWords are what redirect URIs, names and scopes of MCP clients are made
// of. The list only ever grows at the end: sealed ids hold the positions.
func packedWords() []string {
	return []string{
		"https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback",
		"claude://claude.ai/mcp-auth-callback/sdk",
		"https://chatgpt.com/connector/oauth/", "https://chatgpt.com/connector_platform_oauth_redirect",
		"https://www.cursor.com/agents/mcp/oauth/callback", "cursor://anysphere.cursor-mcp/oauth/callback",
		"https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect",
		"http://127.0.0.1:33418/", "http://localhost:33418/", "http://127.0.0.1/", "http://localhost/",
		"http://localhost:6274/oauth/callback", "http://localhost:3334/oauth/callback",
		"http://localhost:7777/oauth/callback", "http://127.0.0.1:19876/mcp/oauth/callback",
		"https://oauth-redirect.googleusercontent.com/r/", "https://global.consent.azure-apim.net/redirect",
		"https://callback.mistral.ai/v1/integrations_auth/oauth2_callback",
		".perplexity.ai/rest/connections/oauth_callback", "https://oauth.n8n.cloud/oauth2/callback",
		"https://", "http://", "http://localhost:", "http://127.0.0.1:", "http://[::1]:", "https://www.",
		"/callback", "/oauth/callback", "/mcp/oauth/callback", "/oauth2/callback", "/auth/callback", "/oauth_callback",
		"/api/", "/auth/", "/oauth", "/mcp", "/redirect", "/connections", "/debug", "callback", "redirect", "connect",
		".com/", ".com", ".ai/", ".dev/", ".io/", ".net/", ".org/", ".cloud/", ".app/", "localhost", "example",
		"Claude", "Claude Code", "ChatGPT", "Codex", "Cursor", "Visual Studio Code", "MCP", "MCP Inspector", "MCP CLI Proxy",
		"Goose", "Gemini CLI MCP Client", "Perplexity", "Copilot", " Client", " (", "mcp", "client", "server",
		"openid", "profile", "email", "offline_access", "openid profile email", ":read", ":write", ":admin",
		"mcp:", "mcp:read mcp:write", "read", "write", "github.com/", "google", "microsoft", "oauth", "auth", "agent",
	}
}

func newTextPacker() *textPacker {
	p := &textPacker{words: packedWords()}
	for i, word := range p.words {
		p.byHead[word[0]] = append(p.byHead[word[0]], packedWord{text: word, code: byte(0x80 + i)})
	}
	for _, words := range p.byHead {
		slices.SortStableFunc(words, func(a, b packedWord) int { return len(b.text) - len(a.text) })
	}
	return p
}

// pack appends the packed form of s to b.
func (p *textPacker) pack(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return append(append(b, 0), s...)
		}
	}
next:
	for len(s) > 0 {
		for _, word := range p.byHead[s[0]] {
			if len(word.text) > 1 && len(word.text) <= len(s) && s[:len(word.text)] == word.text {
				b, s = append(b, word.code), s[len(word.text):]
				continue next
			}
		}
		b, s = append(b, s[0]), s[1:]
	}
	return b
}

// unpack is the inverse of pack.
func (p *textPacker) unpack(b []byte) (s string, ok bool) {
	if len(b) > 0 && b[0] == 0 {
		return string(b[1:]), true
	}
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		switch {
		case c < 0x80:
			out = append(out, c)
		case int(c-0x80) < len(p.words):
			out = append(out, p.words[c-0x80]...)
		default:
			return "", false
		}
	}
	return string(out), true
}

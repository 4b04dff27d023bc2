package mcpauth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
)

// credentialDir is where `caddy mcp-auth login` puts credentials: below the data
// directory of the user that runs it.
func credentialDir() string { return filepath.Join(caddy.AppDataDir(), "mcp_auth", "credentials") }

// credentialPath is the file for an MCP server: its host, to be recognized, and
// a hash, since a host can have several servers.
func credentialPath(resource string) string {
	host := "server"
	if u, err := url.Parse(resource); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	sum := sha256.Sum256([]byte(resource))
	return filepath.Join(credentialDir(), fileName(host)+"-"+hex.EncodeToString(sum[:6])+".json")
}

// fileName keeps what every file system takes.
func fileName(host string) string {
	name := []byte(host[:min(len(host), 100)])
	for i, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			name[i] = '_'
		}
	}
	return string(name)
}

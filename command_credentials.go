package mcpauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// logoutCommand deletes the stored credential of a remote MCP server.
func logoutCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "logout <url>",
		Short: "Deletes the stored credential of a remote MCP server",
		Long: `
Deletes the credential that "caddy mcp-auth login <url>" stored. The reverse proxy
stops using it at once. The authorization server is not told: end the access
there, if it has a page for that.`,
		Args: oneURL("logout"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			resource, file, err := openCredential(args[0], path)
			if err != nil {
				return removeUnreadable(cmd.ErrOrStderr(), resource, path, err)
			}
			unlock, err := file.Lock(cmd.Context()) // Caddy may be refreshing it
			if err != nil {
				return err
			}
			defer unlock()
			err = os.Remove(file.Path())
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no credential for %s: %s does not exist; caddy mcp-auth list shows what is there", resource, file.Path())
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "Deleted %s.\n", file.Path())
			return err
		},
	}
	cmd.Flags().StringVar(&path, "out", "", "The file, if login was given one")
	return cmd
}

// removeUnreadable deletes a file that cannot be used for the reason err, if it is
// a credential of the server for all that can be seen.
func removeUnreadable(out io.Writer, resource, path string, err error) error {
	if resource == "" {
		return err
	}
	if path == "" {
		path = credentialPath(resource)
	}
	if deletable(path, resource) != nil {
		return err
	}
	if errRemove := os.Remove(path); errRemove != nil {
		return errors.Join(err, errRemove)
	}
	_, err = fmt.Fprintf(out, "Deleted %s, which could not be used (%s).\n", path, err)
	return err
}

// deletable returns an error if the file is not, or may not be, a credential of
// the resource: one of another server, or something else altogether that --out
// names by mistake.
func deletable(path, resource string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	if path == credentialPath(resource) || info.Size() == 0 {
		return nil
	}
	if info.Size() > 1<<20 {
		return errors.New("it is larger than a credential")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var content struct {
		ServerURL string `json:"server_url"`
	}
	if json.Unmarshal(data, &content) == nil && content.ServerURL != "" && content.ServerURL != resource ||
		!bytes.HasPrefix(bytes.TrimSpace(data), []byte(`{`)) || !bytes.Contains(data[:min(len(data), 200)], []byte(`"version"`)) {
		return errors.New("it is not a credential of " + resource)
	}
	return nil
}

// listCommand shows the stored credentials, without any token.
func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Lists the stored credentials of remote MCP servers",
		Long: `
Lists the credentials that "caddy mcp-auth login" stored in Caddy's data directory:
MCP server, authorization server and file. It shows no token.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			files, err := filepath.Glob(filepath.Join(credentialDir(), "*.json"))
			if err != nil {
				return err
			}
			if len(files) == 0 {
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "There are none in %s.\n", credentialDir())
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			for _, file := range files {
				server, issuer := describeCredential(file)
				if _, err := fmt.Fprintf(table, "%s\t%s\t%s\n", server, issuer, file); err != nil {
					return err
				}
			}
			return table.Flush()
		},
	}
}

// describeCredential says whose credential a file holds.
func describeCredential(path string) (server, issuer string) {
	var content struct {
		ServerURL string `json:"server_url"`
		Token     string `json:"token"`
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &content)
	}
	if err != nil || content.ServerURL == "" {
		return "(cannot be read)", "-"
	}
	if content.Token == "" {
		return content.ServerURL, "-"
	}
	return content.ServerURL, content.Token
}

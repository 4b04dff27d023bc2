package mcpauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// loginOptions are the flags of the login command.
type loginOptions struct {
	clientID, clientSecretFile string
	issuer                     string
	scopes, allowOrigins       []string
	noBrowser                  bool
	port                       int
	timeout                    time.Duration
	file                       string
}

// loginCommand signs in to a remote MCP server from a terminal.
func loginCommand() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login <url>",
		Short: "Signs in to a remote MCP server and stores the credential",
		Long: `
Signs in to a remote MCP server that OAuth protects, and stores the credential
where the reverse proxy finds it:

	reverse_proxy https://mcp.example.com {
		transport mcp_oauth {
			login
		}
	}

<url> is the URL of the MCP server, such as https://mcp.example.com/mcp. The
sign-in happens in a browser; where none can be opened, open the printed URL on
this machine, or forward the port of --port to it.

The credential lies in Caddy's data directory, which is that of the user who
runs the command: run it as the user that Caddy runs as, or name a file with
--out and write it after "login" in the configuration. Only its owner can read
the file. Caddy, which replaces the tokens in it when they expire, must be able
to write there.

Each login registers a client of its own, unless --client-id names one.

Tokens are never printed. The exit status is 0 if you are signed in, else 1;
what was stored before is then kept.`,
		Args: oneURL("login"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			cmd.SilenceUsage = true
			return o.login(ctx, args[0], cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.clientID, "client-id", "", "The client that was registered for you; by default one is registered")
	flags.StringVar(&o.clientSecretFile, "client-secret-file", "", "A file with the secret of that client")
	flags.StringVar(&o.issuer, "authorization-server", "", "The only authorization server that is accepted; by default the one that the MCP server names")
	flags.StringArrayVar(&o.scopes, "scope", nil, "A scope to ask for; may be repeated; by default those that the MCP server names")
	flags.StringArrayVar(&o.allowOrigins, "allow-origin", nil, "An origin of the authorization server that may be http or have a private address; may be repeated")
	flags.BoolVar(&o.noBrowser, "no-browser", false, "Only print the URL")
	flags.IntVar(&o.port, "port", 0, "The port of this machine to which the browser comes back; by default a free one")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "How long to wait for the sign-in")
	flags.StringVar(&o.file, "out", "", "The file for the credential; by default one in Caddy's data directory")
	return cmd
}

// oneURL checks the argument of a command.
func oneURL(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("caddy mcp-auth %s takes the URL of the MCP server, such as https://mcp.example.com/mcp, and got %d arguments", command, len(args))
		}
		return nil
	}
}

// login signs in and then replaces what is stored, so that a login that fails
// changes nothing.
func (o *loginOptions) login(ctx context.Context, server string, out io.Writer) error {
	resource, file, err := openCredential(server, o.file)
	if err != nil {
		return o.explainFile(resource, err)
	}
	if err := checkWritable(ctx, file); err != nil {
		return fmt.Errorf("the credential could not be stored in %s: %w", file.Path(), err)
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	known, err := file.ClientInformation(ctx, o.issuer)
	if err != nil {
		return err
	}
	// A client that was registered for a login is not used for another one: the
	// server may compare its redirect URI with the port, or have forgotten it, and
	// says that only to the person in the browser.
	mayReuse := client == nil && known != nil
	if mayReuse && len(known.RedirectURIs) == 0 {
		client = known // that of --client-id
	}
	result, fresh, err := o.signIn(ctx, resource, client, o.port, out)
	if mayReuse && client == nil && (errors.Is(err, authclient.ErrRegistrationRejected) || errors.Is(err, authclient.ErrIncompatible)) {
		if port := portOf(known); port != 0 && (o.port == 0 || o.port == port) {
			_, _ = fmt.Fprintf(out, "No new client can be registered, so that of the last login is used.\n")
			result, fresh, err = o.signIn(ctx, resource, known, port, out)
		}
	}
	if err != nil {
		return explainLogin(resource, err)
	}
	if err := keepLogin(ctx, file, fresh, result); err != nil {
		return fmt.Errorf("the sign-in has succeeded, but the credential could not be stored in %s: %w", file.Path(), err)
	}
	printLogin(out, resource, file.Path(), result)
	return nil
}

// signIn waits for the person in the browser. Without a client one is registered.
func (o *loginOptions) signIn(ctx context.Context, resource string, client *authclient.ClientInformation, port int, out io.Writer) (authclient.Result, authclient.Store, error) {
	fresh := authclient.NewMemoryStore()
	loopback, err := authclient.NewLoopback(fresh, authclient.LoopbackOptions{
		Metadata:  oauth.ClientMetadata{ClientName: "Caddy", Scope: strings.Join(o.scopes, " ")},
		Client:    client,
		Port:      port,
		NoBrowser: o.noBrowser,
		Output:    out,
		Timeout:   o.timeout,
	})
	if err != nil {
		return authclient.Result{}, nil, err
	}
	defer loopback.Close()
	result, err := authclient.Login(ctx, loopback, authclient.Options{
		ServerURL: resource, Scope: strings.Join(o.scopes, " "), ExpectedIssuer: o.issuer, AllowOrigins: o.allowOrigins, ForceReauthorization: true,
	})
	if err == nil && client == nil && result.Client != nil && len(result.Client.RedirectURIs) == 0 {
		registered := *result.Client // by a server that does not repeat them
		registered.RedirectURIs = []string{loopback.RedirectURL()}
		result.Client = &registered
	}
	return result, fresh, err
}

// portOf is the port that a client was registered with, 0 if there is none.
func portOf(client *authclient.ClientInformation) int {
	for _, redirect := range client.RedirectURIs {
		if u, err := url.Parse(redirect); err == nil && u.Hostname() == "127.0.0.1" {
			if port, err := strconv.Atoi(u.Port()); err == nil {
				return port
			}
		}
	}
	return 0
}

// lockWait is how long the check of a file waits for a Caddy that renews it.
const lockWait = 2 * time.Second

// checkWritable finds out before the sign-in that a file cannot be written.
func checkWritable(ctx context.Context, file *authclient.FileStore) error {
	probe, err := os.CreateTemp(filepath.Dir(file.Path()), ".mcp-auth-*")
	if err != nil {
		return err
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := file.Lock(ctx)
	switch {
	case err == nil:
		unlock()
	case ctx.Err() == nil: // else somebody has it
		return err
	}
	return nil
}

// openCredential returns the MCP server's URL as credentials have it, and the
// file for it.
func openCredential(server, path string) (resource string, _ *authclient.FileStore, err error) {
	resource, err = authclient.ResourceURLFromServerURL(server)
	if err != nil {
		return "", nil, fmt.Errorf("%q is not the URL of an MCP server, such as https://mcp.example.com/mcp: %w", server, err)
	}
	if path == "" {
		path = credentialPath(resource)
	}
	file, err := authclient.OpenFileStore(path, authclient.FileOptions{ServerURL: resource})
	if err != nil {
		return resource, nil, fmt.Errorf("credential file: %w", err)
	}
	return resource, file, nil
}

// client is the client of the flags, nil if there is none.
func (o *loginOptions) client() (*authclient.ClientInformation, error) {
	if o.clientID == "" {
		if o.clientSecretFile != "" {
			return nil, errors.New("--client-secret-file is about the client of --client-id: name that too")
		}
		return nil, nil
	}
	client := &authclient.ClientInformation{Issuer: o.issuer}
	client.ClientID = o.clientID
	client.TokenEndpointAuthMethod = oauth.AuthMethodNone
	if o.clientSecretFile == "" {
		return client, nil
	}
	if o.issuer == "" {
		return nil, errors.New("a client secret goes to one authorization server only: name it with --authorization-server")
	}
	secret, err := os.ReadFile(o.clientSecretFile)
	if err != nil {
		return nil, fmt.Errorf("--client-secret-file: %w", err)
	}
	client.ClientSecret, client.TokenEndpointAuthMethod = string(bytes.TrimSpace(secret)), ""
	if client.ClientSecret == "" {
		return nil, fmt.Errorf("--client-secret-file: %s is empty", o.clientSecretFile)
	}
	return client, nil
}

// keepLogin puts the new credential in place of the old one.
func keepLogin(ctx context.Context, file *authclient.FileStore, fresh authclient.Store, result authclient.Result) error {
	unlock, err := file.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	discovery, err := fresh.DiscoveryState(ctx)
	if err != nil {
		return err
	}
	if result.Client != nil {
		if err := file.SaveClientInformation(ctx, result.Client); err != nil {
			return err
		}
	}
	if discovery != nil {
		if err := file.SaveDiscoveryState(ctx, discovery); err != nil {
			return err
		}
	}
	return file.SaveTokens(ctx, result.Tokens)
}

// explainFile adds how to get rid of a file that cannot be used.
func (o *loginOptions) explainFile(resource string, err error) error {
	path, command := o.file, "caddy mcp-auth logout "+resource
	if path == "" {
		path = credentialPath(resource)
	} else {
		command += " --out " + path
	}
	if resource == "" || deletable(path, resource) != nil {
		return err
	}
	return fmt.Errorf("%w; to delete the file: %s", err, command)
}

// explainLogin adds what helps with the errors that people meet first.
func explainLogin(resource string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("the sign-in was cancelled; nothing is changed")
	case errors.Is(err, authclient.ErrRegistrationRejected):
		return fmt.Errorf("%w; with such a client: caddy mcp-auth login --client-id <id> %s", err, resource)
	}
	if refused, ok := errors.AsType[*authclient.RefusedURLError](err); ok {
		here := *refused
		here.Reason = strings.Replace(here.Reason, "in AllowOrigins", "with --allow-origin", 1)
		return &here
	}
	return err
}

func printLogin(out io.Writer, resource, path string, result authclient.Result) {
	t := result.Tokens
	_, _ = fmt.Fprintf(out, "Signed in to %s.\n  authorization server  %s\n", resource, t.Issuer)
	if t.Scope != "" {
		_, _ = fmt.Fprintf(out, "  scope                 %s\n", oauth.CleanDescription(t.Scope))
	}
	_, _ = fmt.Fprintf(out, "  credential            %s\n", path)
	switch {
	case t.RefreshToken != "":
	case t.ExpiresAt.IsZero():
		_, _ = fmt.Fprintln(out, "The server gave no refresh token and did not say when the access token ends: sign in again when it is refused.")
	default:
		_, _ = fmt.Fprintf(out, "The server gave no refresh token: sign in again when the access token ends, at %s.\n", t.ExpiresAt.Format(time.RFC3339))
	}
}

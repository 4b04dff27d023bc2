package mcpauth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// keyCommand makes an API key for `verify static`.
func keyCommand() *cobra.Command {
	var key bearer.APIKey
	var expires, hmacVariable string
	cmd := &cobra.Command{
		Use:   "key --user <user> [--scope <scope>]...",
		Short: "Makes an API key for `verify static`",
		Long: `
Makes a random API key. The first line of the output is the key itself: give it
to whom it is for, since it can not be found out again. What follows is the entry
for the file that "verify static" reads, which holds only its hash.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if hmacVariable != "" && os.Getenv(hmacVariable) == "" {
				return fmt.Errorf("--hmac-key-env: the environment variable %s is not set", hmacVariable)
			}
			entry, token, err := newKey(key, expires, os.Getenv(hmacVariable))
			if err != nil {
				return err
			}
			text, err := json.MarshalIndent(entry, "", "\t")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", token, text)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&key.User, "user", "", "Whom the key acts for")
	flags.StringVar(&key.Client, "client", "", "The OAuth client that it stands for; the key's id by default")
	flags.StringArrayVar(&key.Scopes, "scope", nil, "A scope that it grants; may be repeated")
	flags.StringArrayVar(&key.Resources, "resource", nil, "The URL of a resource that it is for; may be repeated; all of the site by default")
	flags.StringVar(&expires, "expires", "", "When it ends: a duration such as 2160h, a day such as 2027-01-31, or a time; never by default")
	flags.StringVar(&hmacVariable, "hmac-key-env", "", "The environment variable that holds the hmac_key of the configuration, for an hmac-sha256 hash")
	return cmd
}

func newKey(entry bearer.APIKey, expires, hmacKey string) (bearer.APIKey, string, error) {
	if entry.User == "" {
		return entry, "", errors.New("--user is needed: whom does the key act for?")
	}
	for name, value := range map[string]string{"--user": entry.User, "--client": entry.Client} {
		if strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) {
			return entry, "", fmt.Errorf("%s: %q has characters that cannot be seen: write the name as tokens would have it", name, value)
		}
	}
	for _, resource := range entry.Resources {
		if u, err := url.Parse(resource); err != nil || u.Host == "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
			return entry, "", fmt.Errorf("--resource: %q is no URL: write that of a resource, such as https://mcp.example.com/mcp", resource)
		}
	}
	made, token := bearer.NewAPIKey()
	entry.ID, entry.Hash = made.ID, made.Hash
	if hmacKey != "" {
		mac := hmac.New(sha256.New, []byte(hmacKey))
		mac.Write([]byte(token))
		entry.Hash = "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
	}
	if expires != "" {
		if d, err := time.ParseDuration(expires); err == nil && d > 0 {
			entry.Expires = time.Now().Add(d).UTC().Truncate(time.Second)
		} else if entry.Expires, err = bearer.ParseKeyExpiry(expires); err != nil {
			return entry, "", fmt.Errorf("--expires: write for example 2160h or 2027-01-31")
		}
		if !entry.Expires.After(time.Now()) {
			return entry, "", fmt.Errorf("--expires: %s is over: write a time to come", expires)
		}
	}
	// What the verifier would refuse is found here.
	_, err := bearer.NewStaticVerifier(bearer.StaticConfig{Keys: []bearer.APIKey{entry}, HMACKey: hmacKey, Audience: []string{"any"}})
	return entry, token, err
}

package bearer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// minPlainKey is the least length of a key whose digest is quick to compute, in
// characters: what is shorter could be guessed.
const minPlainKey = 32

// APIKey is a key that the operator hands out, in Go and as a member of keys in
// a file.
type APIKey struct {
	// ID names the key in messages: letters, digits and hyphens.
	ID string `json:"id"`
	// Hash is how a key is known without being written down, one of
	//
	//   - sha256:<64 hexadecimal digits> of the whole key, which then has to be
	//     random with at least 128 bits, as NewAPIKey makes it
	//   - hmac-sha256:<64 hexadecimal digits>, the same with a secret besides
	//   - $argon2id$v=19$m=…,t=…,p=…$<salt>$<hash> for a key that somebody chose;
	//     it has to begin with ID and an underscore
	Hash string `json:"hash,omitempty"`
	// Key is the key itself in place of Hash, at least 32 characters. For secrets
	// that come from elsewhere.
	Key string `json:"key,omitempty"`

	// User is whom the key acts for.
	User string `json:"user"`
	// Client is the OAuth client that it stands for. Default: ID.
	Client string `json:"client,omitempty"`
	// Scopes are granted.
	Scopes []string `json:"scopes,omitempty"`
	// Expires is when the key ends; zero means never.
	Expires time.Time `json:"expires,omitzero"`
	// Resources are what the key is for, by identifier. Default: as the verifier
	// says.
	Resources []string `json:"resources,omitempty"`
	// Email, Name and Groups are claims about the user. The address counts as
	// verified.
	Email  string   `json:"email,omitempty"`
	Name   string   `json:"name,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// NewAPIKey makes a random key and its ID. The returned key has no user yet; the
// token is to be given to whom it is for, and can not be found out again.
func NewAPIKey() (key APIKey, token string) {
	var id [8]byte
	var secret [32]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	key.ID = APIKeyPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:]))
	token = key.ID + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	digest := sha256.Sum256([]byte(token))
	key.Hash = "sha256:" + hex.EncodeToString(digest[:])
	return key, token
}

// apiKey is an APIKey, checked.
type apiKey struct {
	APIKey
	audience []string
	digest   [sha256.Size]byte
	keyed    bool // digest is an HMAC
	slow     *argon2id
}

// argon2id is a hash in the form of the reference implementation.
type argon2id struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// Check returns an error that says what is wrong with the key, and nothing of the
// key itself. keyed tells that there is a secret for hashes with hmac-sha256.
func (k *APIKey) Check(keyed bool) error {
	_, err := k.compile(keyed)
	return err
}

// compile checks the key. Error texts hold no secret.
func (k *APIKey) compile(keyed bool) (*apiKey, error) {
	c := &apiKey{APIKey: *k, audience: k.Resources}
	c.Key = "" // not needed any more
	switch {
	case !isKeyID(k.ID):
		return nil, errors.New("an id of letters, digits and hyphens is needed, 64 at most")
	case k.User == "":
		return nil, errors.New("the user is missing whom the key acts for")
	case (k.Hash == "") == (k.Key == ""):
		return nil, errors.New("give the hash of the key, or the key itself; `caddy mcp-auth key` makes one with its hash")
	case slices.Contains(k.Resources, ""):
		return nil, errors.New("a resource is empty")
	}
	for _, scope := range k.Scopes {
		if !oauth.ValidScope(scope) {
			return nil, fmt.Errorf("%q is not a scope", scope)
		}
	}
	if c.Client == "" {
		c.Client = k.ID
	}
	return c, c.setHash(k, keyed)
}

func (c *apiKey) setHash(k *APIKey, keyed bool) (err error) {
	if k.Key != "" {
		if len(k.Key) < minPlainKey || !isB64Token(k.Key) || len(k.Key) > maxToken {
			return errors.New("the key must have at least 32 letters, digits and - . _ ~ + /, so that it is hard to guess and fits into a header")
		}
		c.digest = sha256.Sum256([]byte(k.Key))
		return nil
	}
	if strings.HasPrefix(k.Hash, "$argon2id$") {
		c.slow, err = parseArgon2id(k.Hash)
		return err
	}
	kind, digits, _ := strings.Cut(k.Hash, ":")
	switch kind {
	case "sha256":
	case "hmac-sha256":
		if !keyed {
			return errors.New("an hmac-sha256 hash needs the hmac_key that it was made with")
		}
		c.keyed = true
	default:
		return errors.New("the hash begins with sha256:, hmac-sha256: or $argon2id$")
	}
	if digest, err := hex.DecodeString(digits); err != nil || copy(c.digest[:], digest) != len(c.digest) || len(digest) != len(c.digest) {
		return fmt.Errorf("%s: is followed by 64 hexadecimal digits", kind)
	}
	return nil
}

func isKeyID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

// parseArgon2id reads a hash in the PHC string format. What it costs is bounded,
// since everybody can have it computed.
func parseArgon2id(s string) (*argon2id, error) {
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != "v=19" {
		return nil, errors.New("the hash must look like $argon2id$v=19$m=47104,t=1,p=1$<salt>$<hash>")
	}
	parameters := strings.Split(fields[3], ",")
	var numbers [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		var err error
		if len(parameters) != len(numbers) || !strings.HasPrefix(parameters[i], name) {
			return nil, errors.New("the parameters of argon2id must look like m=47104,t=1,p=1")
		}
		if numbers[i], err = strconv.ParseUint(parameters[i][len(name):], 10, 32); err != nil {
			return nil, errors.New("the parameters of argon2id must look like m=47104,t=1,p=1")
		}
	}
	m, t, p := numbers[0], numbers[1], numbers[2]
	if m < 7168 || m > 128<<10 || t < 1 || t > 10 || p < 1 || p > 8 {
		return nil, errors.New("argon2id: m is 7168 to 131072 (KiB), t 1 to 10, p 1 to 8")
	}
	h := &argon2id{memory: uint32(m), time: uint32(t), threads: uint8(p)}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(fields[4])
	h.key, err2 = base64.RawStdEncoding.Strict().DecodeString(fields[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 {
		return nil, errors.New("argon2id: the salt is base64 of 8 to 64 bytes, the hash of 16 to 64")
	}
	return h, nil
}

// info is what is known of somebody with the key.
func (c *apiKey) info(token string) *oauth.TokenInfo {
	info := &oauth.TokenInfo{
		Token: token, ClientID: c.Client, Scopes: c.Scopes, UserID: c.User, ExpiresAt: c.Expires, Audience: c.audience,
		Extra: map[string]any{"key_id": c.ID},
	}
	if c.Email != "" {
		// The operator vouches for it.
		info.Extra["email"], info.Extra["email_verified"] = c.Email, true
	}
	if c.Name != "" {
		info.Extra["name"] = c.Name
	}
	if len(c.Groups) > 0 {
		groups := make([]any, len(c.Groups))
		for i, group := range c.Groups {
			groups[i] = group
		}
		info.Extra["groups"] = groups
	}
	return info
}

// parseKeyFile reads {"keys": [...]}. Member names are matched exactly, and
// unknown ones refused: a typing error must not widen what a key may do.
func parseKeyFile(data []byte) ([]APIKey, error) {
	var document map[string]json.RawMessage
	if err := strictjson.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	var raw []map[string]json.RawMessage
	for name, value := range document {
		if name != "keys" {
			return nil, fmt.Errorf("%.40q is no member of the file; there is keys", name)
		}
		if err := json.Unmarshal(value, &raw); err != nil {
			return nil, errors.New("keys must be an array of objects")
		}
	}
	keys := make([]APIKey, len(raw))
	for i, members := range raw {
		if err := keys[i].read(members); err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	return keys, nil
}

func (k *APIKey) read(members map[string]json.RawMessage) error {
	var expires string
	targets := map[string]any{
		"id": &k.ID, "hash": &k.Hash, "user": &k.User, "client": &k.Client, "scopes": &k.Scopes, "expires": &expires,
		"resources": &k.Resources, "email": &k.Email, "name": &k.Name, "groups": &k.Groups,
	}
	for name, value := range members {
		target, ok := targets[name]
		if !ok {
			return fmt.Errorf("%.40q is no member of a key; there are id, hash, user, client, scopes, expires, resources, email, name and groups", name)
		}
		if string(value) == "null" {
			return fmt.Errorf("%s is null; leave it out", name)
		}
		if err := json.Unmarshal(value, target); err != nil {
			return fmt.Errorf("%s has the wrong type", name)
		}
	}
	if _, there := members["expires"]; !there {
		return nil
	}
	var err error
	k.Expires, err = ParseKeyExpiry(expires)
	return err
}

// ParseKeyExpiry reads when a key ends: a day (2027-01-31, the key ends when it
// begins, in UTC) or a time (RFC 3339).
func ParseKeyExpiry(s string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("expires: %.40q is neither a day such as 2027-01-31 nor a time such as 2027-01-31T12:00:00Z", s)
	}
	return t, nil
}

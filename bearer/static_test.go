package bearer_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/argon2"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	staticResource = "https://mcp.example.com/mcp"
	hmacSecret     = "a secret of at least 32 characters"
)

func newStatic(t testing.TB, c bearer.StaticConfig) *bearer.StaticVerifier {
	t.Helper()
	if c.Audience == nil {
		c.Audience = []string{staticResource}
	}
	v, err := bearer.NewStaticVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sha256Hash(token string) string {
	digest := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(digest[:])
}

func hmacHash(token string) string {
	mac := hmac.New(sha256.New, []byte(hmacSecret))
	mac.Write([]byte(token))
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}

func argon2idHash(token string) string {
	salt := []byte("a salt of 16 byt")
	enc := base64.RawStdEncoding.EncodeToString
	return "$argon2id$v=19$m=7168,t=1,p=1$" + enc(salt) + "$" + enc(argon2.IDKey([]byte(token), salt, 1, 7168, 1, 32))
}

func TestStaticKeys(t *testing.T) {
	random := strings.Repeat("r4nd0m", 8)
	expires := time.Now().Add(time.Hour)
	v := newStatic(t, bearer.StaticConfig{HMACKey: hmacSecret, Keys: []bearer.APIKey{
		{ID: "sha", Hash: sha256Hash("sha" + random), User: "alice", Scopes: []string{"a"}, Groups: []string{"g"}, Email: "a@b.c", Name: "Al"},
		{ID: "mac", Hash: hmacHash("mac" + random), User: "bob", Client: "ci", Resources: []string{"https://other.example"}, Expires: expires},
		{ID: "slow", Hash: argon2idHash("slow_hunter2"), User: "carol"},
		{ID: "plain", Key: "plain" + random, User: "dave"},
	}})
	for _, test := range []struct {
		token string
		want  oauth.TokenInfo
	}{
		{"sha" + random, oauth.TokenInfo{
			ClientID: "sha", UserID: "alice", Scopes: []string{"a"}, Audience: []string{staticResource},
			Extra: map[string]any{"key_id": "sha", "groups": []any{"g"}, "email": "a@b.c", "email_verified": true, "name": "Al"},
		}},
		{"mac" + random, oauth.TokenInfo{
			ClientID: "ci", UserID: "bob", Audience: []string{"https://other.example"}, ExpiresAt: expires, Extra: map[string]any{"key_id": "mac"},
		}},
		{"slow_hunter2", oauth.TokenInfo{ClientID: "slow", UserID: "carol", Audience: []string{staticResource}, Extra: map[string]any{"key_id": "slow"}}},
		{"plain" + random, oauth.TokenInfo{ClientID: "plain", UserID: "dave", Audience: []string{staticResource}, Extra: map[string]any{"key_id": "plain"}}},
	} {
		info, err := v.VerifyAccessToken(t.Context(), test.token)
		if err != nil {
			t.Errorf("%s: %v", test.token, err)
			continue
		}
		test.want.Token = test.token
		if diff := cmp.Diff(&test.want, info); diff != "" {
			t.Errorf("%s: %s", test.token, diff)
		}
		if !v.Recognizes(test.token) {
			t.Errorf("%s is not recognised", test.token)
		}
	}
	for _, wrong := range []string{
		"", "x", "sha" + random + "x", "SHA" + random, "mac" + strings.ToUpper(random), "slow_hunter3", "slow", "slow_", "_", "carol_hunter2",
		sha256Hash("sha" + random), argon2idHash("slow_hunter2"), strings.Repeat("x", 17<<10), bearer.APIKeyPrefix + "x_y",
	} {
		_, err := v.VerifyAccessToken(t.Context(), wrong)
		wantError(t, err, oauth.ErrInvalidToken, "API key is")
	}
	for token, want := range map[string]bool{bearer.APIKeyPrefix + "gone_x": true, "slow_wrong": true, "eyJ.e30.x": false, "opaque": false} {
		if v.Recognizes(token) != want {
			t.Errorf("recognises %q: %v", token, !want)
		}
	}
}

// A digest with a secret is no digest without it, and the other way round.
func TestStaticDigestsAreApart(t *testing.T) {
	token := strings.Repeat("r4nd0m", 8)
	_, digits, _ := strings.Cut(sha256Hash(token), ":")
	_, macDigits, _ := strings.Cut(hmacHash(token), ":")
	v := newStatic(t, bearer.StaticConfig{HMACKey: hmacSecret, Keys: []bearer.APIKey{
		{ID: "a", Hash: "hmac-sha256:" + digits, User: "alice"}, {ID: "b", Hash: "sha256:" + macDigits, User: "alice"},
	}})
	_, err := v.VerifyAccessToken(t.Context(), token)
	wantError(t, err, oauth.ErrInvalidToken, "API key is not valid")
}

func TestStaticKeyExpires(t *testing.T) {
	var c clock
	token := strings.Repeat("r4nd0m", 8)
	v := remembering(t, newStatic(t, bearer.StaticConfig{Now: c.now, Keys: []bearer.APIKey{
		{ID: "a", Hash: sha256Hash(token), User: "alice", Expires: c.now().Add(time.Minute)},
	}}), bearer.TokenCacheConfig{Now: c.now})
	if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	_, err := v.VerifyAccessToken(t.Context(), token)
	wantError(t, err, oauth.ErrInvalidToken, "API key has expired")
}

func TestExpiredKeysAreNamed(t *testing.T) {
	var c clock
	var log strings.Builder
	newStatic(t, bearer.StaticConfig{
		Now: c.now, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Keys: []bearer.APIKey{
			{ID: "over", Hash: sha256Hash("1"), User: "alice", Expires: c.now()},
			{ID: "good", Hash: sha256Hash("2"), User: "alice", Expires: c.now().Add(time.Second)},
			{ID: "forever", Hash: sha256Hash("3"), User: "alice"},
		},
	})
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "key=over") {
		t.Errorf("logged: %s", got)
	}
}

func TestNewAPIKey(t *testing.T) {
	key, token := bearer.NewAPIKey()
	key.User = "alice"
	other, otherToken := bearer.NewAPIKey()
	if !strings.HasPrefix(token, bearer.APIKeyPrefix) || len(token) < 60 || token == otherToken || key.ID == other.ID || strings.Contains(key.Hash, token) {
		t.Errorf("got %q and %q", token, otherToken)
	}
	v := newStatic(t, bearer.StaticConfig{Keys: []bearer.APIKey{key}})
	if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
		t.Error(err)
	}
}

// A wrong key for a slow hash is computed once in a while, few are at once, and
// those who wait too long in too long a queue are told to come again.
func TestSlowHashesAreFewAtOnce(t *testing.T) {
	plain := newStatic(t, bearer.StaticConfig{Keys: []bearer.APIKey{{ID: "slow", Hash: argon2idHash("slow_hunter2"), User: "carol"}}})
	if verdict, _ := plain.Verdict(t.Context(), "slow_wrong"); verdict.Until.IsZero() {
		t.Error("a wrong key costs a hash each time")
	}
	if verdict, _ := plain.Verdict(t.Context(), "unknown_wrong"); !verdict.Until.IsZero() {
		t.Error("a key that costs nothing takes room")
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for n := range 200 {
		all.Go(func() {
			_, err := plain.VerifyAccessToken(t.Context(), fmt.Sprint("slow_wrong", n))
			mu.Lock()
			defer mu.Unlock()
			outcomes[oauth.AsError(err).Code]++
		})
	}
	all.Wait()
	if outcomes["invalid_token"] == 0 || outcomes["temporarily_unavailable"] == 0 || len(outcomes) != 2 {
		t.Errorf("got %v", outcomes)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := plain.VerifyAccessToken(gone, "slow_hunter2"); err != nil && !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
		t.Errorf("got %v", err)
	}
}

func writeKeys(t *testing.T, file string, keys ...bearer.APIKey) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, file, string(text))
}

// replaceFile does as editors do, so that no reader sees half of it.
func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFileIsReadAnew(t *testing.T) {
	var c clock
	var lines logLines
	file := filepath.Join(t.TempDir(), "keys.json")
	first, second := strings.Repeat("f1rst", 8), strings.Repeat("sec0nd", 8)
	key := func(token string) bearer.APIKey {
		return bearer.APIKey{ID: token[:3], Hash: sha256Hash(token), User: "alice", Scopes: []string{"a"}, Expires: c.now().Add(time.Hour).UTC().Truncate(time.Second)}
	}
	writeKeys(t, file, key(first))
	v := remembering(t, newStatic(t, bearer.StaticConfig{File: file, Now: c.now, Logger: slog.New(slog.NewTextHandler(&lines, nil))}), bearer.TokenCacheConfig{Now: c.now})
	check := func(when string, firstWorks, secondWorks bool) {
		t.Helper()
		for token, works := range map[string]bool{first: firstWorks, second: secondWorks} {
			if _, err := v.VerifyAccessToken(t.Context(), token); (err == nil) != works {
				t.Errorf("%s: %s: %v", when, token[:3], err)
			}
		}
	}
	check("at first", true, false)
	writeKeys(t, file, key(second))
	check("at once", true, false)
	c.advance(3 * time.Second)
	check("3 s later", false, true) // remembered or not
	for _, broken := range []string{`{`, ``, `{"keys":[{"id":"x"}]}`, `{"keys":[],"extra":1}`, `{"keys":[{"id":"x","user":"y","hash":"` + sha256Hash("x") + `","scope":["a"]}]}`} {
		replaceFile(t, file, broken)
		before := strings.Count(lines.String(), "level=ERROR")
		for range 3 {
			c.advance(3 * time.Second)
			check("with the broken file "+broken, false, true)
		}
		if n := strings.Count(lines.String(), "level=ERROR") - before; n != 1 {
			t.Errorf("%s: %d lines in the log", broken, n)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.advance(3 * time.Second)
		check("without the file", false, true)
	}
	writeKeys(t, file, key(first), key(second))
	c.advance(3 * time.Second)
	check("when it is back", true, true)
	if strings.Contains(lines.String(), first) || strings.Contains(lines.String(), sha256Hash(first)) {
		t.Error("the log holds a key")
	}
}

func TestNewStaticVerifierRefuses(t *testing.T) {
	good := sha256Hash("x")
	file := filepath.Join(t.TempDir(), "keys.json")
	replaceFile(t, file, `{"keys":[{"id":"a","id":"b"}]}`)
	key := func(k bearer.APIKey) bearer.StaticConfig {
		return bearer.StaticConfig{Keys: []bearer.APIKey{k}, Audience: []string{staticResource}}
	}
	for _, test := range []struct {
		want   string
		config bearer.StaticConfig
	}{
		{"name API keys", bearer.StaticConfig{}},
		{"less than 32", bearer.StaticConfig{HMACKey: "short", Keys: []bearer.APIKey{{ID: "a", Hash: good, User: "u"}}}},
		{"no such file", bearer.StaticConfig{File: "/nonexistent/keys.json"}},
		{"two members", bearer.StaticConfig{File: file, Audience: []string{"x"}}},
		{"no regular file", bearer.StaticConfig{File: filepath.Dir(file), Audience: []string{"x"}}},
		{"letters, digits", key(bearer.APIKey{ID: "a_b", Hash: good, User: "u"})},
		{"letters, digits", key(bearer.APIKey{Hash: good, User: "u"})},
		{"user is missing", key(bearer.APIKey{ID: "a", Hash: good})},
		{"give the hash", key(bearer.APIKey{ID: "a", User: "u"})},
		{"give the hash", key(bearer.APIKey{ID: "a", User: "u", Hash: good, Key: strings.Repeat("x", 32)})},
		{"at least 32", key(bearer.APIKey{ID: "a", User: "u", Key: "short"})},
		{"at least 32", key(bearer.APIKey{ID: "a", User: "u", Key: strings.Repeat("x ", 32)})},
		{"begins with", key(bearer.APIKey{ID: "a", User: "u", Hash: "md5:00"})},
		{"64 hexadecimal", key(bearer.APIKey{ID: "a", User: "u", Hash: good[:40]})},
		{"64 hexadecimal", key(bearer.APIKey{ID: "a", User: "u", Hash: good + "00"})},
		{"64 hexadecimal", key(bearer.APIKey{ID: "a", User: "u", Hash: "sha256:" + strings.Repeat("x", 64)})},
		{"needs the hmac_key", key(bearer.APIKey{ID: "a", User: "u", Hash: hmacHash("x")})},
		{"m is 7168", key(bearer.APIKey{ID: "a", User: "u", Hash: "$argon2id$v=19$m=4194304,t=1,p=1$YWFhYWFhYWFhYWFhYWFhYQ$YWFhYWFhYWFhYWFhYWFhYQ"})},
		{"m is 7168", key(bearer.APIKey{ID: "a", User: "u", Hash: "$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWFhYWFhYWFhYQ$YWFhYWFhYWFhYWFhYWFhYQ"})},
		{"must look like", key(bearer.APIKey{ID: "a", User: "u", Hash: "$argon2id$v=19$m=7168$x$y"})},
		{"must look like", key(bearer.APIKey{ID: "a", User: "u", Hash: "$argon2id$v=16$m=7168,t=1,p=1$x$y"})},
		{"the salt is base64", key(bearer.APIKey{ID: "a", User: "u", Hash: "$argon2id$v=19$m=7168,t=1,p=1$YQ$YWFhYWFhYWFhYWFhYWFhYQ"})},
		{"is not a scope", key(bearer.APIKey{ID: "a", User: "u", Hash: good, Scopes: []string{"a b"}})},
		{"a resource is empty", key(bearer.APIKey{ID: "a", User: "u", Hash: good, Resources: []string{""}})},
		{"no resource", bearer.StaticConfig{Keys: []bearer.APIKey{{ID: "a", User: "u", Hash: good}}}},
		{"twice", bearer.StaticConfig{Audience: []string{"x"}, Keys: []bearer.APIKey{{ID: "a", User: "u", Hash: good}, {ID: "a", User: "u", Hash: sha256Hash("y")}}}},
		{"same hash", bearer.StaticConfig{Audience: []string{"x"}, Keys: []bearer.APIKey{{ID: "a", User: "u", Hash: good}, {ID: "b", User: "u", Hash: good}}}},
	} {
		if _, err := bearer.NewStaticVerifier(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error with %q", test.config, err, test.want)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	key, _ := bearer.NewAPIKey()
	f.Add(`{"keys":[{"id":"` + key.ID + `","hash":"` + key.Hash + `","user":"alice","scopes":["a"],"expires":"2027-01-31"}]}`)
	f.Add(`{"keys":[{"id":"a","hash":"` + argon2idHash("a_b") + `","user":"u","resources":["https://x.example"],"groups":["g"]}]}`)
	f.Add(`{"keys":[]}`)
	f.Add(`{"Keys":[{}]}`)
	f.Add(`{"keys":[{"id":null}]}`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "keys.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := bearer.NewStaticVerifier(bearer.StaticConfig{File: file, HMACKey: hmacSecret, Audience: []string{staticResource}})
		if err != nil {
			return
		}
		var document struct{ Keys []struct{ User, Hash string } }
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			t.Fatalf("%q was accepted", text)
		}
		for _, k := range document.Keys {
			if k.User == "" || k.Hash == "" {
				t.Fatalf("%q was accepted", text)
			}
		}
		if _, err := v.VerifyAccessToken(t.Context(), "somebody"); err == nil {
			t.Fatalf("%q lets somebody in", text)
		}
	})
}

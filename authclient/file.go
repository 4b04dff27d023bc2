package authclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// fileVersion is the version of the format that FileStore writes.
const fileVersion = 1

// maxFile bounds the file, in bytes.
const maxFile = 1 << 20

// lockPause is how often a lock that another process has is tried again.
const lockPause = 50 * time.Millisecond

// FileOptions are the options of OpenFileStore.
type FileOptions struct {
	// ServerURL is the MCP server whose credentials the file holds. A file with
	// those of another server is refused.
	ServerURL string
}

// FileStore keeps credentials in a file that only its owner can read. Several
// processes may use one file: its Lock holds among them, by a lock file beside
// it. The file is replaced at once, so that a crash leaves the old one or the
// new one.
//
// Auth calls the Save methods with the lock held. Who calls them otherwise has
// to hold it.
type FileStore struct {
	path   string
	server string
	slot   chan struct{}
	mu     sync.Mutex
}

var _ Store = (*FileStore)(nil)

// fileContent is the JSON in the file.
type fileContent struct {
	Version   int    `json:"version"`
	ServerURL string `json:"server_url"`
	record
}

// OpenFileStore returns the store of the file. The file need not exist; its
// folder is made if it does not. A file that others than its owner may read,
// that is malformed or of another server, is an error.
func OpenFileStore(path string, o FileOptions) (*FileStore, error) {
	if path == "" || o.ServerURL == "" {
		return nil, errors.New("a file store needs a path and the URL of the MCP server")
	}
	server, err := ResourceURLFromServerURL(o.ServerURL)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	s := &FileStore{path: path, server: server, slot: make(chan struct{}, 1)}
	_, err = s.load()
	return s, err
}

// Path is the path of the file.
func (s *FileStore) Path() string { return s.path }

// Lock implements Locker, also among processes.
func (s *FileStore) Lock(ctx context.Context) (unlock func(), err error) {
	release, err := acquire(ctx, s.slot)
	if err != nil {
		return nil, err
	}
	held, err := s.lockFile(ctx)
	if err != nil {
		release()
		return nil, fmt.Errorf("the lock of %s cannot be had: %w", s.path, err)
	}
	return func() {
		_ = held.Close() // which unlocks
		release()
	}, nil
}

func (s *FileStore) lockFile(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		locked, err := tryLock(f)
		if locked && err == nil {
			return f, nil
		}
		if err == nil {
			err = pause(ctx, lockPause)
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// load reads the file; one that does not exist is empty.
func (s *FileStore) load() (*fileContent, error) {
	content := &fileContent{Version: fileVersion, ServerURL: s.server}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return content, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", s.path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds credentials and can be read by others: run chmod 600 on it, and sign in again if somebody may have", s.path)
	}
	if err := strictjson.Read(f, maxFile, content); err != nil {
		return nil, fmt.Errorf("%s is damaged: delete it and sign in again: %w", s.path, err)
	}
	switch {
	case content.Version != fileVersion:
		return nil, fmt.Errorf("%s has version %d of its format, this program knows %d: use the program that wrote it, or delete it and sign in again", s.path, content.Version, fileVersion)
	case content.ServerURL != s.server:
		return nil, fmt.Errorf("%s holds the credentials of %s, not of %s: give each server a file", s.path, content.ServerURL, s.server)
	}
	return content, nil
}

// view gives fn what is in the file.
func (s *FileStore) view(fn func(r *record)) error {
	content, err := s.load()
	if err == nil {
		fn(&content.record)
	}
	return err
}

// change gives fn what is in the file and writes it back.
func (s *FileStore) change(fn func(r *record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, err := s.load()
	if err != nil {
		return err
	}
	fn(&content.record)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(content); err != nil {
		return err
	}
	return replaceFile(s.path, b.Bytes())
}

// replaceFile writes a new file and gives it the name of the old one. Another
// reader sees one or the other.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ClientInformation implements Provider.
func (s *FileStore) ClientInformation(_ context.Context, issuer string) (c *ClientInformation, err error) {
	err = s.view(func(r *record) { c = r.client(issuer) })
	return c, err
}

// SaveClientInformation implements Registrar.
func (s *FileStore) SaveClientInformation(_ context.Context, client *ClientInformation) error {
	return s.change(func(r *record) { r.saveClient(client) })
}

// Tokens implements Provider.
func (s *FileStore) Tokens(_ context.Context, issuer string) (t *Tokens, err error) {
	err = s.view(func(r *record) { t = r.tokens(issuer) })
	return t, err
}

// SaveTokens implements Provider.
func (s *FileStore) SaveTokens(_ context.Context, tokens *Tokens) error {
	return s.change(func(r *record) { r.saveTokens(tokens) })
}

// CodeVerifier implements Provider.
func (s *FileStore) CodeVerifier(context.Context) (verifier string, err error) {
	err = s.view(func(r *record) { verifier = r.CodeVerifier })
	return verifier, err
}

// SaveCodeVerifier implements Provider.
func (s *FileStore) SaveCodeVerifier(_ context.Context, verifier string) error {
	return s.change(func(r *record) { r.saveVerifier(verifier) })
}

// codeVerifiers implements loginKeeper.
func (s *FileStore) codeVerifiers(context.Context) (all []string, err error) {
	err = s.view(func(r *record) { all = r.verifiers() })
	return all, err
}

// forgetCodeVerifier implements loginKeeper.
func (s *FileStore) forgetCodeVerifier(_ context.Context, verifier string) error {
	return s.change(func(r *record) { r.forgetVerifier(verifier) })
}

// DiscoveryState implements DiscoveryStore.
func (s *FileStore) DiscoveryState(context.Context) (d *DiscoveryState, err error) {
	err = s.view(func(r *record) { d = r.Discovery })
	return d, err
}

// SaveDiscoveryState implements DiscoveryStore.
func (s *FileStore) SaveDiscoveryState(_ context.Context, state *DiscoveryState) error {
	return s.change(func(r *record) { r.Discovery = state })
}

// InvalidateCredentials implements CredentialInvalidator.
func (s *FileStore) InvalidateCredentials(_ context.Context, scope CredentialScope, issuer string) error {
	return s.change(func(r *record) { r.invalidate(scope, issuer) })
}

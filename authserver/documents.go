package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Bounds of metadata documents.
const (
	maxDocument     = 10 << 10 // bytes; the draft recommends 5 KiB
	recommendedSize = 5 << 10
	maxKeyDocument  = 64 << 10
	documentLeast   = 5 * time.Minute
	documentMost    = 24 * time.Hour
	documentUsual   = time.Hour
	keysMost        = time.Hour
	// keysGap is the least time between two fetches for unknown keys.
	keysGap = time.Minute
)

// DocumentsConfig are the options of NewDocuments. The zero value accepts
// documents of all public hosts.
type DocumentsConfig struct {
	// Client fetches the documents. Default: a guarded client, which connects to
	// public addresses only, and to those of PrivateOrigins.
	Client *http.Client
	// Hosts confines the documents to these hosts: "claude.ai", or
	// "*.example.com" for all hosts below example.com. Empty: any host.
	Hosts []string
	// PrivateOrigins are exact origins of documents (https://host[:port], or
	// http:// with a loopback host) whose addresses may be private. They are not
	// exempt from Hosts.
	PrivateOrigins []string
	// Policy says which redirect URIs the documents may use; nil is the default.
	Policy *oauth.RedirectPolicy
	// MaxEntries and MaxBytes bound the cache. Default: 1000 documents, 8 MiB.
	MaxEntries int
	MaxBytes   int64
	// Logger gets what is refused (info) and stale documents in use (warn).
	// Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Documents fetches and keeps client ID metadata documents
// (draft-ietf-oauth-client-id-metadata-document) and the keys that they name.
// It is safe for concurrent use and starts no goroutine.
//
// A document is used as long as its HTTP headers say, at least 5 minutes and at
// most 24 hours. If it cannot be fetched then because of the network, a
// timeout, 429 or a status of 500 and above, the old one is used for up to 24
// hours after the last good fetch. Any other answer counts at once.
type Documents struct {
	config  DocumentsConfig
	hosts   []hostPattern
	private map[string]bool // origins
	cache   *remote[*Document]
	keys    *remote[*clientKeys]
}

// NewDocuments returns a Documents. It does no I/O.
func NewDocuments(c DocumentsConfig) (*Documents, error) {
	d := &Documents{private: make(map[string]bool)}
	for _, host := range c.Hosts {
		pattern, err := parseHostPattern(host)
		if err != nil {
			return nil, err
		}
		d.hosts = append(d.hosts, pattern)
	}
	for _, raw := range c.PrivateOrigins {
		origin, _, err := safehttp.CheckPrivateOrigin(raw)
		if err != nil {
			return nil, err
		}
		d.private[origin] = true
	}
	if err := c.Policy.Validate(); err != nil {
		return nil, err
	}
	if c.MaxEntries < 0 || c.MaxBytes < 0 {
		return nil, errors.New("the bounds of the cache of metadata documents must not be negative")
	}
	if c.Client == nil {
		var err error
		if c.Client, err = safehttp.NewGuardedClient(safehttp.GuardOptions{AllowOrigins: c.PrivateOrigins}); err != nil {
			return nil, err
		}
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = 1000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 8 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	d.config = c
	f := newFetcher(c.Client, c.Logger, c.Now)
	d.cache = newRemote(f, "The client metadata document", maxDocument, documentMost, c.MaxEntries, c.MaxBytes, d.parse)
	d.keys = newRemote(f, "The JWKS of the client", maxKeyDocument, keysMost, c.MaxEntries, c.MaxBytes,
		func(_ string, body []byte) (*clientKeys, error) { return parseClientKeys(body) })
	return d, nil
}

// Get returns the document at the URL that the client uses as its id. The
// address in the context (ContextWithCaller) is whose failures are counted.
//
// Errors: oauth.ErrInvalidClient if there is no such document or it is not
// allowed here, oauth.ErrTooManyRequests, and oauth.ErrTemporarilyUnavailable
// if it cannot be fetched at the moment. The Document is shared: it must not
// be changed.
func (d *Documents) Get(ctx context.Context, clientID string) (*Document, error) {
	if err := d.Check(clientID); err != nil {
		return nil, err
	}
	return d.cache.get(ctx, clientID)
}

// Check tells, without a fetch, whether the client id is a URL whose document
// would be accepted; else the error is oauth.ErrInvalidClient.
func (d *Documents) Check(clientID string) error {
	refuse := func(why string) error {
		return oauth.ErrInvalidClient.Describe("The client_id is not the URL of a usable client metadata document: " + why)
	}
	host, origin, err := checkDocumentURL(clientID)
	if err != nil {
		return refuse(err.Error())
	}
	if !isHTTPS(clientID) && !d.private[origin] {
		return refuse("its scheme is not https")
	}
	if len(d.hosts) == 0 {
		return nil
	}
	for _, pattern := range d.hosts {
		if pattern.matches(host) {
			return nil
		}
	}
	return refuse("this server accepts documents of other hosts only; ask its operator to add the host")
}

// keysOf returns the keys of a client with a document.
func (d *Documents) keysOf(ctx context.Context, doc *Document) (*clientKeys, error) {
	if doc.keys != nil {
		return doc.keys, nil
	}
	return d.keys.get(ctx, doc.Client.JWKSURI)
}

// newerKeysOf is keysOf for a key that the keys at hand do not hold.
func (d *Documents) newerKeysOf(ctx context.Context, doc *Document) (*clientKeys, error) {
	if doc.keys != nil {
		return doc.keys, nil
	}
	return d.keys.renew(ctx, doc.Client.JWKSURI, keysGap)
}

// checkKeysURL refuses a jwks_uri that would borrow somebody else's exemption
// from the address check.
func (d *Documents) checkKeysURL(clientID, jwksURI string) error {
	_, own, err := checkDocumentURL(clientID)
	if err != nil {
		return err
	}
	_, origin, err := checkDocumentURL(jwksURI)
	switch {
	case err != nil:
		return fmt.Errorf("its jwks_uri is not usable: %w", err)
	case origin == own:
		return nil
	case !isHTTPS(jwksURI):
		return errors.New("the scheme of its jwks_uri is not https")
	case d.private[origin]:
		return errors.New("its jwks_uri is on an origin that serves documents of its own only")
	}
	return nil
}

func newRemote[T any](f *fetcher, what string, limit int64, most time.Duration, entries int, bytes int64, parse func(string, []byte) (T, error)) *remote[T] {
	r := &remote[T]{
		fetcher: f, what: what, limit: limit, parse: parse,
		least: documentLeast, most: most, usual: documentUsual,
		maxEntries: entries, maxBytes: bytes,
	}
	r.init()
	return r
}

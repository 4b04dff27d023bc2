package bearer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// probeTimeout bounds one of the URLs at which metadata may lie, so that one
// that hangs leaves time for the others.
const probeTimeout = 4 * time.Second

// DiscoveryConfig says whose metadata to load. Only Issuer is required.
type DiscoveryConfig struct {
	// Issuer is the authorization server's issuer identifier. The document must
	// name it byte for byte (RFC 8414 §3.3).
	Issuer string
	// MetadataURL is where the document lies. If empty, the URLs that RFC 8414
	// and OpenID Connect Discovery derive from the issuer are tried in the
	// order that the MCP specification gives them.
	MetadataURL string
	// RefreshInterval is the age at which the document is loaded anew, 1 hour
	// if 0.
	RefreshInterval time.Duration
	// Client makes the requests; nil is a client bounded in time and size. Its
	// redirect policy is not used: redirects are never followed.
	Client *http.Client
	// Logger gets what happens in the background; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Discovery holds the metadata document of an authorization server (RFC 8414,
// OpenID Connect Discovery). It is loaded on first use or by Run, and the last
// good version is served while a newer one cannot be loaded. It is safe for
// concurrent use.
type Discovery struct {
	issuer   string
	urls     []string
	client   *http.Client
	document *fresh[document]
}

type document struct {
	raw      []byte
	metadata *oauth.Metadata
}

// NewDiscovery checks the configuration. It does no I/O.
func NewDiscovery(c DiscoveryConfig) (*Discovery, error) {
	if err := checkURL("issuer", c.Issuer); err != nil {
		return nil, err
	}
	d := &Discovery{issuer: c.Issuer, client: upstreamClient(c.Client)}
	if c.MetadataURL != "" {
		if err := checkURL("metadata URL", c.MetadataURL); err != nil {
			return nil, err
		}
		d.urls = []string{c.MetadataURL}
	} else {
		var err error
		if d.urls, err = oauth.AuthorizationServerMetadataURLs(c.Issuer); err != nil {
			return nil, err
		}
	}
	d.document = &fresh[document]{
		load:     d.load,
		interval: durationOr(c.RefreshInterval, time.Hour),
		gap:      staleGap,
		trouble:  "The authorization server cannot be reached at the moment. Try again later.",
		now:      clockOr(c.Now),
		logger: loggerOr(c.Logger).With(
			slog.String("document", "authorization server metadata"), slog.String("issuer", c.Issuer)),
	}
	return d, nil
}

// Issuer returns the configured issuer identifier.
func (d *Discovery) Issuer() string { return d.issuer }

// Metadata returns the metadata, which is shared and must not be changed. The
// first call loads it unless Run has; all callers share that load, and a
// failure is remembered for one second. Errors are
// oauth.ErrTemporarilyUnavailable.
func (d *Discovery) Metadata(ctx context.Context) (*oauth.Metadata, error) {
	doc, err := d.document.get(ctx)
	if err != nil {
		return nil, err
	}
	return doc.metadata, nil
}

// Document returns the bytes of the document as they were received, for a
// mirror. They are shared and must not be changed. Errors are those of
// Metadata.
func (d *Discovery) Document(ctx context.Context) ([]byte, error) {
	doc, err := d.document.get(ctx)
	if err != nil {
		return nil, err
	}
	return doc.raw, nil
}

// endpoint returns the URL that of finds in the metadata under name. A document
// without one that can be used is loaded anew, since the server may have a better
// one by now: after a reload, say.
func (d *Discovery) endpoint(ctx context.Context, name string, of func(*oauth.Metadata) string) (string, error) {
	metadata, err := d.Metadata(ctx)
	if err != nil {
		return "", err
	}
	problem := checkEndpoint(name, of(metadata), d.issuer)
	if problem == nil {
		return of(metadata), nil
	}
	if err := d.Refresh(ctx); err != nil {
		return "", errors.Join(problem, err)
	}
	if metadata, err = d.Metadata(ctx); err != nil {
		return "", err
	}
	return of(metadata), checkEndpoint(name, of(metadata), d.issuer)
}

// Refresh loads the document now, for a caller who misses an endpoint in it or
// got 404 from one. Within 10 s of another Refresh it does nothing. Errors are
// those of Metadata; the last good document stays in use.
func (d *Discovery) Refresh(ctx context.Context) error {
	_, _, err := d.document.renew(ctx)
	return err
}

// Run loads the document and keeps it fresh until ctx ends. After a failure it
// tries again after 1 s, doubling to 1 min.
func (d *Discovery) Run(ctx context.Context) { d.document.run(ctx) }

// load tries the URLs in order. A 4xx means that the document is not there;
// anything else that is not the document is trouble, but the next URL may
// still have it.
func (d *Discovery) load(ctx context.Context) (*document, error) {
	var failures []error
	for _, address := range d.urls {
		doc, err := d.fetch(ctx, address)
		if err == nil {
			return doc, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("loading the metadata of %s: %w", d.issuer, errors.Join(failures...))
}

func (d *Discovery) fetch(ctx context.Context, address string) (*document, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	body, err := get(ctx, d.client, address)
	if err != nil {
		return nil, err
	}
	metadata := new(oauth.Metadata)
	if err := strictjson.Unmarshal(body, metadata); err != nil {
		return nil, fmt.Errorf("%s answered no metadata document: %w", address, err)
	}
	// RFC 8414 §3.3: identical, or the document must not be used.
	if metadata.Issuer != d.issuer {
		return nil, fmt.Errorf("%s is the document of issuer %.200q, but %q is configured; they must be equal byte for byte",
			address, metadata.Issuer, d.issuer)
	}
	return &document{raw: body, metadata: metadata}, nil
}

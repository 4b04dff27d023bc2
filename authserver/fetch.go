package authserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Bounds of what strangers can make this server fetch.
const (
	fetchTimeout   = safehttp.GuardTimeout
	maxFetches     = 32 // at once
	maxHostFetches = 4  // at once from one host
	throttleHosts  = 4 << 10
)

// fetchLimit is how many fetches may fail, for a host and for a caller.
func fetchLimit() RateLimit { return RateLimit{Count: 20, Window: time.Minute} }

// errUnusable marks an answer that says for certain that there is no such
// document, in contrast to trouble on the way.
var errUnusable = errors.New("no usable document")

// fetcher fetches documents from URLs that strangers chose.
type fetcher struct {
	client   *http.Client
	logger   *slog.Logger
	now      func() time.Time
	gate     *fetchGate
	failures *bucketSet
}

func newFetcher(client *http.Client, logger *slog.Logger, now func() time.Time) *fetcher {
	return &fetcher{
		client: client, logger: logger, now: now,
		gate:     &fetchGate{hosts: make(map[string]int), changed: make(chan struct{})},
		failures: newBucketSet(throttleHosts),
	}
}

// fetch gets the JSON document at the address and reads it. It goes on to its
// end even if the caller goes away, because others may wait for it. known
// documents are not held up for what strangers asked of their host.
//
// The error is errUnusable, too_many_requests if the caller or host has failed
// too often, or trouble.
func (f *fetcher) fetch(ctx context.Context, address string, limit int64, known bool, read func(*safehttp.Answer) error) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%w: the URL cannot be read", errUnusable)
	}
	host := strings.ToLower(u.Host)
	succeeded, err := f.attempt(callerOf(ctx), host, known)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	if err := f.gate.enter(ctx, host); err != nil {
		succeeded() // our own limit, not the host's failure
		return fmt.Errorf("waiting for a free place: %w", err)
	}
	defer f.gate.leave(host)
	answer, err := f.get(ctx, address, limit)
	if err != nil {
		return err
	}
	if err := read(answer); err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	succeeded()
	return nil
}

// get returns the answer if it is a JSON document.
func (f *fetcher) get(ctx context.Context, address string, limit int64) (*safehttp.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: the URL cannot be read", errUnusable)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mcpauth")
	answer, err := safehttp.Do(f.client, req, limit)
	switch {
	case errors.Is(err, safehttp.ErrRefused), errors.Is(err, safehttp.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	case err != nil:
		return nil, err
	case answer.Status == http.StatusTooManyRequests, answer.Status >= 500:
		return nil, fmt.Errorf("the answer has status %d", answer.Status)
	case answer.Status != http.StatusOK:
		// Redirects too: the document must be where the client says it is.
		return nil, fmt.Errorf("%w: the answer has status %d", errUnusable, answer.Status)
	}
	mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" && (!strings.HasPrefix(mediaType, "application/") || !strings.HasSuffix(mediaType, "+json")) {
		return nil, fmt.Errorf("%w: its Content-Type is not application/json", errUnusable)
	}
	return answer, nil
}

// attempt counts a fetch as failed until succeeded says otherwise, so that
// many at once do not slip through together.
func (f *fetcher) attempt(caller, host string, known bool) (succeeded func(), err error) {
	now := f.now()
	keys := []bucketKey{{endpoint: "fetch by", network: network(caller)}}
	if !known {
		keys = append(keys, bucketKey{endpoint: "fetch from", client: sha256.Sum256([]byte(host)), perClient: true})
	}
	var undo []func()
	succeeded = func() {
		for _, u := range undo {
			u()
		}
	}
	for _, key := range keys {
		reservation := f.failures.get(key, fetchLimit()).ReserveN(now, 1)
		undo = append(undo, func() { reservation.CancelAt(now) })
		if reservation.DelayFrom(now) > 0 {
			succeeded()
			return nil, oauth.ErrTooManyRequests.Describe("Too many client metadata documents could not be fetched, try again in a minute")
		}
	}
	return succeeded, nil
}

// fetchGate bounds the fetches that are under way.
type fetchGate struct {
	mu      sync.Mutex
	total   int
	hosts   map[string]int
	changed chan struct{} // closed when one ends
}

// enter waits for a free place.
func (g *fetchGate) enter(ctx context.Context, host string) error {
	for {
		g.mu.Lock()
		if g.total < maxFetches && g.hosts[host] < maxHostFetches {
			g.total++
			g.hosts[host]++
			g.mu.Unlock()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *fetchGate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.hosts[host]--; g.hosts[host] == 0 {
		delete(g.hosts, host)
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// freshness is how long an answer may be used (RFC 9111 §4.2), def if it does
// not say, and within the bounds.
func freshness(h http.Header, least, most, def time.Duration) time.Duration {
	life, told := def, false
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(h.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return least
		case "max-age", "s-maxage":
			seconds, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
			if err != nil || told && name == "max-age" {
				continue
			}
			life, told = time.Duration(seconds)*time.Second, true
		}
	}
	if expires, err := http.ParseTime(h.Get("Expires")); err == nil && !told {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			life, told = expires.Sub(date), true
		}
	}
	if age, err := strconv.ParseInt(h.Get("Age"), 10, 32); err == nil && told && age > 0 {
		life -= time.Duration(age) * time.Second
	}
	return min(max(life, least), most)
}

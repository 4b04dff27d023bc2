package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// cacheBytes bounds the cache of each of the four connections.
	cacheBytes = 8 << 20
	// bufferBytes is the size of each connection's two buffers.
	bufferBytes = 64 << 10
)

// Options configures Open. Only Addresses is required.
type Options struct {
	// Addresses is a host:port (the port is 6379 by default), or a URL: redis:// or
	// valkey://, rediss:// or valkeys:// for TLS, unix:// for a socket. Several
	// host:port are nodes of one cluster.
	Addresses []string
	// Username and Password sign in (ACL, or requirepass with the password alone).
	// They go before those of a URL.
	Username, Password string
	// TLS turns TLS on. An empty configuration checks the server's certificate for
	// its host against the system's roots.
	TLS *tls.Config
	// Database is the number of the database, 0 by default; a cluster has no other.
	Database int
	// Prefix begins all keys, with a colon after it; "mcpauth" by default.
	Prefix string
	// Timeout bounds connecting and every operation; 2 s by default.
	Timeout time.Duration
}

// Open connects to the server. A lost connection is made anew when it is
// needed; until that works, operations fail: within half a second if the server
// refuses connections, within Timeout if it is silent.
func Open(ctx context.Context, o Options) (*Store, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(config)
	if errors.Is(err, rueidis.ErrNoCache) {
		config.DisableCache = true // an old or restricted server: GetCached is Get
		client, err = rueidis.NewClient(config)
	}
	if err != nil {
		return nil, fmt.Errorf("redis: cannot connect to %s: %w", strings.Join(config.InitAddress, ", "), err)
	}
	if o.Prefix == "" {
		o.Prefix = "mcpauth"
	}
	s := &Store{client: client, prefix: o.Prefix + ":", timeout: config.Dialer.Timeout, written: newRecent(time.Now)}
	// That the server answers does not say that it lets us read.
	if _, err := s.Get(ctx, "probe"); err != nil && !errors.Is(err, store.ErrNotFound) {
		client.Close()
		return nil, fmt.Errorf("redis: %s: %w", strings.Join(config.InitAddress, ", "), err)
	}
	return s, nil
}

func (o Options) config() (rueidis.ClientOption, error) {
	config := rueidis.ClientOption{}
	switch {
	case len(o.Addresses) == 0:
		return config, errors.New("redis: an address is required, as in localhost:6379")
	case strings.Contains(o.Addresses[0], "://"):
		if len(o.Addresses) > 1 {
			return config, errors.New("redis: a URL must be the only address")
		}
		parsed, err := rueidis.ParseURL(o.Addresses[0])
		if err != nil { // which may repeat the URL with its password
			return config, errors.New("redis: the address is not a valid URL, as in redis://user@localhost:6379/0 or rediss:// or unix:///run/redis.sock")
		}
		config = parsed
	default:
		for _, address := range o.Addresses {
			full, err := hostPort(address)
			if err != nil {
				return config, err
			}
			config.InitAddress = append(config.InitAddress, full)
		}
	}
	if o.Username != "" {
		config.Username = o.Username
	}
	if o.Password != "" {
		config.Password = o.Password
	}
	if o.TLS != nil {
		config.TLSConfig = o.TLS.Clone()
		if config.TLSConfig.MinVersion == 0 {
			config.TLSConfig.MinVersion = tls.VersionTLS12
		}
	}
	if o.Database != 0 {
		config.SelectDB = o.Database
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	config.Dialer.Timeout = o.Timeout
	config.ConnWriteTimeout = o.Timeout
	// An idle connection is asked for life this often, so that announcements that
	// cannot come are missed for no longer than this and Timeout.
	config.Dialer.KeepAlive = time.Second
	// Read from each connection all the time. Else the end of one shows only when
	// the next command is sent into it, whose outcome is then open.
	config.AlwaysPipelining = true
	config.RetryDelay = retryDelay
	config.CacheSizeEachConn = cacheBytes
	config.ReadBufferEachConn, config.WriteBufferEachConn = bufferBytes, bufferBytes
	return config, nil
}

// retryDelay is how long to wait before a read is tried again because the
// connection was lost; negative ends it. A restart or a lost connection is over
// within that half a second, or it takes much longer: then the callers, of which
// each request makes several, are to know soon.
func retryDelay(attempts int, _ rueidis.Completed, _ error) time.Duration {
	const most = 6
	if attempts >= most {
		return -1
	}
	wait := 5 * time.Millisecond << attempts
	return wait + rand.N(wait) //nolint:gosec // spreads load, keeps no secret
}

func hostPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = strings.Trim(address, "[]"), "6379"
	}
	if host == "" || port == "" || strings.ContainsAny(host, "/@ ") {
		return "", errors.New("redis: an address is host:port, as in localhost:6379, or a URL")
	}
	return net.JoinHostPort(host, port), nil
}

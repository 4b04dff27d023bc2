package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// GuardTimeout bounds one exchange of a guarded client, from the name lookup
// to the end of the body.
const GuardTimeout = 5 * time.Second

// maxDials is how many of a host's addresses are tried.
const maxDials = 4

// ErrRefused is the cause of every request that a guarded client does not
// make, or of which it does not follow the name to its address. Other errors
// are trouble on the way.
var ErrRefused = errors.New("the URL is not one that may be fetched")

// GuardOptions are the options of NewGuardedClient. The zero value allows
// https URLs on port 443 with public addresses.
type GuardOptions struct {
	// AllowOrigins are origins (https://host[:port], or http:// with a loopback
	// host) whose addresses may be private. The origin is that of the requested
	// URL: nothing that is named in the answer inherits the exemption.
	// Link-local addresses and those of cloud metadata services stay refused,
	// and so does a certificate that does not verify.
	AllowOrigins []string
	// AnyPort allows public addresses on every port.
	AnyPort bool
	// Methods are allowed besides GET and HEAD.
	Methods []string
	// MaxConnsPerHost bounds the connections to one host, 4 if 0.
	MaxConnsPerHost int
	// RootCAs replaces the system's roots of trust.
	RootCAs *x509.CertPool
	// Lookup resolves a host name. Default: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// dial replaces the last step, after every check has passed.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewGuardedClient returns a client for URLs that a stranger chose (SSRF,
// draft-ietf-oauth-client-id-metadata-document §8.5): GET or HEAD of https URLs
// without userinfo on the default port, by name or public address. It follows
// no redirect, uses no proxy, sends no cookie and keeps no connection.
//
// All addresses of a name must be allowed, and the connection goes to one of
// those that were checked; the address that the socket connects to is checked
// once more, so that no second answer of the name server gets in between.
//
// The body is not bounded here: read it with Do.
func NewGuardedClient(o GuardOptions) (*http.Client, error) {
	if o.MaxConnsPerHost <= 0 {
		o.MaxConnsPerHost = 4
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	g := &guard{
		private: make(map[string]*http.Transport, len(o.AllowOrigins)),
		methods: append([]string{http.MethodGet, http.MethodHead}, o.Methods...),
		anyPort: o.AnyPort,
	}
	public := addressRule{guardian: ssrf.New(ssrf.WithPorts(443))}
	if o.AnyPort {
		public.guardian = ssrf.New(ssrf.WithAnyPort())
	}
	g.public = o.transport(public)
	for _, raw := range o.AllowOrigins {
		origin, port, err := CheckPrivateOrigin(raw)
		if err != nil {
			return nil, err
		}
		g.private[origin] = o.transport(addressRule{guardian: ssrf.New(ssrf.WithPorts(port)), private: true})
	}
	return &http.Client{
		Timeout:       GuardTimeout,
		Transport:     g,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// CheckPrivateOrigin reads an entry of GuardOptions.AllowOrigins. It returns
// the origin in its usual form and the port, or an error that says what to
// write.
func CheckPrivateOrigin(raw string) (origin string, port uint16, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not an origin: write one such as https://clients.internal.example", raw)
	}
	origin, port, err = originOf(u)
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("%q is not an origin (%w): write one such as https://clients.internal.example", raw, err)
	case u.User != nil:
		return "", 0, errors.New("an origin holds a user name or password: write it without the part up to the @")
	case u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return "", 0, fmt.Errorf("%q is more than an origin: write %q", raw, origin)
	case u.Scheme == "http" && !isLoopbackName(u.Hostname()):
		return "", 0, fmt.Errorf("%q: http is for loopback hosts only; write https", raw)
	}
	return origin, port, nil
}

// originOf returns scheme://host[:port] in lower case without the default port.
func originOf(u *url.URL) (origin string, port uint16, err error) {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname())
	switch {
	case u.Opaque != "" || host == "":
		return "", 0, errors.New("it has no host")
	case scheme == "https":
		port = 443
	case scheme == "http":
		port = 80
	default:
		return "", 0, errors.New("its scheme is neither https nor http")
	}
	if strings.ContainsRune(host, ':') {
		host = "[" + host + "]"
	}
	text := u.Port()
	if text == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", 0, errors.New("its port is empty")
		}
		return scheme + "://" + host, port, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("its port is not a number from 1 to 65535")
	}
	if uint16(n) == port {
		return scheme + "://" + host, port, nil
	}
	return scheme + "://" + host + ":" + strconv.FormatUint(n, 10), uint16(n), nil
}

// isLoopbackName reports whether the host is localhost or a loopback address
// in its usual form.
func isLoopbackName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// guard is the transport of a guarded client. The exempt origins have
// transports of their own, so that no connection is ever used for both.
type guard struct {
	public  *http.Transport
	private map[string]*http.Transport
	methods []string
	anyPort bool
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	transport, err := g.transportFor(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	return transport.RoundTrip(r)
}

// transportFor checks what can be told from the URL.
func (g *guard) transportFor(r *http.Request) (*http.Transport, error) {
	if !slices.Contains(g.methods, r.Method) {
		return nil, refused("the method is " + r.Method)
	}
	u := r.URL
	if u.User != nil {
		return nil, refused("it has a user name or password")
	}
	origin, port, err := originOf(u)
	if err != nil {
		return nil, refused(err.Error())
	}
	if transport := g.private[origin]; transport != nil {
		return transport, nil
	}
	if u.Scheme != "https" {
		return nil, refused("its scheme is not https")
	}
	if port != 443 && !g.anyPort {
		return nil, refused("its port is not 443")
	}
	if err := checkHostName(u.Hostname()); err != nil {
		return nil, err
	}
	return g.public, nil
}

// checkHostName refuses names that some resolvers read as an address: 2130706433,
// 0x7f.1, 127.1 (WHATWG URL, "ends in a number").
func checkHostName(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // its range is checked later
	}
	name := strings.TrimSuffix(host, ".")
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	if last == "" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return refused("its host is neither a name nor an address in its usual form")
	}
	return nil
}

// CheckHost refuses what can be told from the host of a URL without resolving
// it: an address that is not public, and names that some resolvers read as one.
func CheckHost(host string) error {
	if err := checkHostName(host); err != nil {
		return err
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return refused("its host is this machine")
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	return addressRule{guardian: ssrf.New(ssrf.WithAnyPort())}.check(netip.AddrPortFrom(address, 443))
}

func refused(why string) error { return fmt.Errorf("%w: %s", ErrRefused, why) }

func (o *GuardOptions) transport(rule addressRule) *http.Transport {
	dial := o.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 2 * time.Second, Control: rule.control}).DialContext
	}
	lookup := o.Lookup
	return &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, _, hostport string) (net.Conn, error) {
			addresses, err := rule.resolve(ctx, lookup, hostport)
			if err != nil {
				return nil, err
			}
			return dialFirst(ctx, dial, addresses)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxConnsPerHost:        o.MaxConnsPerHost,
		TLSHandshakeTimeout:    GuardTimeout,
		ResponseHeaderTimeout:  GuardTimeout,
		MaxResponseHeaderBytes: 32 << 10,
	}
}

// dialFirst connects to the first address that answers.
func dialFirst(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), addresses []netip.AddrPort) (conn net.Conn, err error) {
	var failed error
	for _, address := range addresses[:min(len(addresses), maxDials)] {
		if conn, err = dial(ctx, "tcp", address.String()); err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// addressRule says which addresses may be connected to.
type addressRule struct {
	guardian *ssrf.Guardian
	// private lifts the check of the range, not of the port.
	private bool
}

// resolve returns the addresses of host:port. All of them must be allowed: a
// name with a private address beside a public one is a rebinding attempt.
func (a addressRule) resolve(ctx context.Context, lookup func(context.Context, string) ([]netip.Addr, error), hostport string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, refused("its host cannot be read")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, refused("its port cannot be read")
	}
	var found []netip.Addr
	if literal, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{literal}
	} else if found, err = lookup(ctx, host); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	addresses := make([]netip.AddrPort, 0, len(found))
	for _, address := range found {
		// A resolver may hand out IPv4 in its IPv6 form; the socket is IPv4 then.
		to := netip.AddrPortFrom(address.Unmap(), uint16(port))
		if address.Is4In6() && !isFromResolver(host) {
			return nil, refused("its host is an IPv4 address in IPv6 form")
		}
		if err := a.check(to); err != nil {
			return nil, err
		}
		addresses = append(addresses, to)
	}
	return addresses, nil
}

// isFromResolver reports whether host is a name, not an address.
func isFromResolver(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil
}

// control is called with the address that a socket is about to connect to.
func (a addressRule) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return refused("its address cannot be read")
	}
	return a.check(to)
}

// check refuses addresses that are not for strangers to choose.
func (a addressRule) check(to netip.AddrPort) error {
	address := to.Addr()
	if slices.ContainsFunc(cloudMetadata(), func(p netip.Prefix) bool { return p.Contains(address.WithZone("")) }) ||
		address.IsLinkLocalUnicast() || address.Is4In6() || address.Zone() != "" {
		return refused("its address is link-local, of a cloud metadata service, or IPv4 in IPv6 form")
	}
	if a.private && isPrivate(address) {
		return nil
	}
	if err := a.guardian.SafeAddrPort(to); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// isPrivate reports whether the address is in a range that organisations use
// inside: RFC 1918, loopback, unique local, and shared (RFC 6598).
func isPrivate(address netip.Addr) bool {
	return address.IsPrivate() || address.IsLoopback() || netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(address)
}

// cloudMetadata are the addresses at which clouds hand credentials to whoever
// asks, as far as they are not link-local: some lie in ranges that an exempt
// origin may have, one in a public range.
func cloudMetadata() []netip.Prefix {
	addresses := []string{
		"fd00:ec2::254",   // AWS, also fd00:ec2::23 for containers
		"fd00:ec2::23",    // AWS
		"fd20:ce::254",    // Google Cloud
		"fd00:42::42",     // Scaleway
		"100.100.100.200", // Alibaba Cloud
		"168.63.129.16",   // Azure
		"192.0.0.192",     // Oracle Cloud
	}
	prefixes := make([]netip.Prefix, 0, len(addresses))
	for _, address := range addresses {
		a := netip.MustParseAddr(address)
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return prefixes
}

package proxyprovider

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	// cookiePart is the most that one cookie holds, in characters: browsers refuse
	// cookies of more than 4096 bytes, name and attributes included.
	cookiePart = 3584
	// maxPending is how many logins a browser may have under way, and maxPendingSize
	// how long their cookies may be together, in characters: servers refuse requests
	// with large headers.
	maxPending     = 12
	maxPendingSize = 24 << 10
	// maxCookiesRead bounds how many cookies of ours are looked at.
	maxCookiesRead = 64
)

// cookieNames are the names of our cookies. They end in a hash of the issuer, for
// on loopback many servers share one host and its cookies.
type cookieNames struct {
	secure bool
	// browser is the id of the browser, memory the remembered consent, session the
	// sign-in at the page of connected apps.
	// again asks the upstream for another account, see Broker.signIn. next is where
	// a sign-in of its own leads, see Broker.SignedIn.
	browser, memory, session, again, next string
	// The two parts of a transaction's cookie: the prefix, 8 hexadecimal digits,
	// the suffix.
	transactionPrefix [2]string
	suffix            string
}

// newCookieNames makes the names. __Host- keeps other hosts of the domain from
// setting them, but needs Secure, which http cannot have.
func newCookieNames(issuer string, secure bool) cookieNames {
	prefix := ""
	if secure {
		prefix = "__Host-"
	}
	suffix := "_" + suffixOf(issuer)
	return cookieNames{
		secure:            secure,
		browser:           prefix + "mcp_b" + suffix,
		memory:            prefix + "mcp_c" + suffix,
		session:           prefix + "mcp_s" + suffix,
		again:             prefix + "mcp_a" + suffix,
		next:              prefix + "mcp_n" + suffix,
		transactionPrefix: [2]string{prefix + "mcp_t_", prefix + "mcp_u_"},
		suffix:            suffix,
	}
}

// set sets a cookie, for this session of the browser if life is 0.
func (n *cookieNames) set(w http.ResponseWriter, name, value string, life time.Duration, mode http.SameSite) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // secure unless the site is http; all modes are lax or strict
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: n.secure, HttpOnly: true, SameSite: mode,
	})
}

// clear removes a cookie.
func (n *cookieNames) clear(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: n.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}) //nolint:gosec // as above
}

// cookie returns the value of a cookie, "" if there is none or more than one.
func cookie(r *http.Request, name string) string {
	if found := r.CookiesNamed(name); len(found) == 1 {
		return found[0].Value
	}
	return ""
}

// transaction returns the 8 digits of a transaction if the name is that of one
// of its cookies.
func (n *cookieNames) transaction(name string) (digits string, ok bool) {
	for _, prefix := range n.transactionPrefix {
		rest, found := strings.CutPrefix(name, prefix)
		digits, ends := strings.CutSuffix(rest, n.suffix)
		if found && ends && len(digits) == 8 && strings.Trim(digits, "0123456789abcdef") == "" {
			return digits, true
		}
	}
	return "", false
}

// parts are the names of a transaction's cookies.
func (n *cookieNames) parts(digits string) [2]string {
	return [2]string{n.transactionPrefix[0] + digits + n.suffix, n.transactionPrefix[1] + digits + n.suffix}
}

// ours reports whether a cookie is this issuer's.
func (n *cookieNames) ours(name string) bool {
	if !strings.HasSuffix(name, n.suffix) {
		return false
	}
	_, transaction := n.transaction(name)
	return transaction || name == n.browser || name == n.memory || name == n.session || name == n.again || name == n.next
}

// StripCookies removes our cookies from a request that is passed on: they are
// nobody else's business. Others stay byte for byte.
func (b *browserFlow) StripCookies(r *http.Request) {
	headers := r.Header["Cookie"]
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.Contains(h, b.jar.suffix) }) {
		return
	}
	var kept []string
	for _, header := range headers {
		var rest []string
		for pair := range strings.SplitSeq(header, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if !b.jar.ours(strings.TrimSpace(name)) {
				rest = append(rest, pair)
			}
		}
		if joined := strings.TrimSpace(strings.Join(rest, ";")); joined != "" {
			kept = append(kept, joined)
		}
	}
	if len(kept) == 0 {
		r.Header.Del("Cookie")
		return
	}
	r.Header["Cookie"] = kept
}

// setTransaction puts the transaction into the browser, in two cookies if one
// cannot hold it. The oldest logins under way give way.
func (b *browserFlow) setTransaction(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction) error {
	sealed, err := seals.transaction.Seal(tx.encode(), b.cfg.Now().Add(loginTime))
	if err != nil {
		return err
	}
	if len(sealed) > 2*cookiePart {
		return errors.New("a transaction that does not fit into two cookies")
	}
	b.dropOldest(w, r, seals, len(sealed))
	names := b.jar.parts(tx.name())
	first := min(len(sealed), cookiePart)
	b.jar.set(w, names[0], sealed[:first], loginTime, http.SameSiteLaxMode)
	if first < len(sealed) {
		b.jar.set(w, names[1], sealed[first:], loginTime, http.SameSiteLaxMode)
	}
	return nil
}

// pendingLogin is a login under way, as its cookies tell.
type pendingLogin struct {
	digits  string
	size    int
	started stamp // 0 if the cookies are no good
}

// dropOldest makes room for a transaction of that size.
func (b *browserFlow) dropOldest(w http.ResponseWriter, r *http.Request, seals *brokerSeals, size int) {
	var pending []pendingLogin
	for _, c := range r.Cookies() {
		digits, ok := b.jar.transaction(c.Name)
		if !ok || len(pending) == maxCookiesRead || slices.ContainsFunc(pending, func(p pendingLogin) bool { return p.digits == digits }) {
			continue
		}
		p := pendingLogin{digits: digits, size: len(b.joined(r, digits))}
		if tx, err := b.openTransaction(r, seals, digits); err == nil {
			p.started = tx.started
		}
		pending = append(pending, p)
	}
	slices.SortFunc(pending, func(x, y pendingLogin) int { return int(y.started - x.started) }) // the newest first
	for i, p := range pending {
		size += p.size
		if p.started == 0 || i >= maxPending-1 || size > maxPendingSize {
			b.clearTransaction(w, r, p.digits)
		}
	}
}

// joined puts the parts of a transaction's cookie together.
func (b *browserFlow) joined(r *http.Request, digits string) string {
	names := b.jar.parts(digits)
	return cookie(r, names[0]) + cookie(r, names[1])
}

// openTransaction reads the transaction from its cookies.
func (b *browserFlow) openTransaction(r *http.Request, seals *brokerSeals, digits string) (*transaction, error) {
	sealed := b.joined(r, digits)
	if sealed == "" || len(sealed) > 2*cookiePart {
		return nil, seal.ErrInvalid
	}
	plaintext, err := seals.transaction.Open(sealed, b.cfg.Now())
	if err != nil {
		return nil, err
	}
	return decodeTransaction(plaintext)
}

// clearTransaction removes the cookies of a transaction that are there.
func (b *browserFlow) clearTransaction(w http.ResponseWriter, r *http.Request, digits string) {
	for _, name := range b.jar.parts(digits) {
		if len(r.CookiesNamed(name)) > 0 {
			b.jar.clear(w, name)
		}
	}
}

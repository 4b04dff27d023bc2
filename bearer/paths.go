package bearer

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

const (
	// maxReadings is how many readings of one path are followed. Paths that
	// people and clients write have fewer than ten.
	maxReadings = 64
	// maxReadingBytes bounds all readings of one path together, so that nobody
	// can make the guard work much longer on a path than on a token.
	maxReadingBytes = 32 << 10
)

// sitePath is the path of a request in every way in which a server behind the
// guard may read it. Servers differ in whether they decode once or twice,
// resolve dot segments before or after that, merge slashes, take a backslash
// for a slash, cut parameters off (RFC 3986 §3.3), or fold case. A guard that
// reads a path in one way only is passed by whoever writes it in another
// (SECURITY §7).
type sitePath struct {
	// plain is the path if it has one reading; comparing it costs nothing.
	plain string
	// readings are all readings, in lower case, if there is no plain one.
	readings []string
	size     int // of all readings, in bytes
	// odd says that a reading holds what changes its meaning from server to
	// server: a dot segment, %2f, %5c, a semicolon, a backslash or a control
	// character.
	odd bool
	// endless says that there are more readings than the guard follows.
	endless bool
}

// readPath returns the readings of u's path.
func readPath(u *url.URL) sitePath {
	if u.Opaque != "" {
		// "GET x:%2fmcp": passed on, it would be a path that was not looked at.
		return sitePath{endless: true}
	}
	if (u.RawPath == "" || u.RawPath == u.Path) && isPlainPath(u.Path) {
		return sitePath{plain: u.Path}
	}
	var p sitePath
	p.add(rooted(foldCase(u.EscapedPath())))
	if u.RawPath != "" {
		// A rewrite may leave a RawPath that no longer belongs to Path.
		// EscapedPath ignores that one, a server behind may not.
		p.add(rooted(foldCase(u.RawPath)))
	}
	p.expand()
	p.odd = slices.ContainsFunc(p.readings, isOddPath)
	return p
}

// expand adds to the readings whatever the rules below make of them, one rule
// after another in any order, until nothing new appears.
func (p *sitePath) expand() {
	for i := 0; i < len(p.readings) && !p.endless; i++ {
		for _, read := range [...]func(string) string{
			decodePercent, backslashAsSlash, withoutParameters, withoutControls, beforeQuery, mergeSlashes, path.Clean,
		} {
			p.add(read(p.readings[i]))
		}
	}
}

func (p *sitePath) add(reading string) {
	switch {
	case slices.Contains(p.readings, reading):
	case len(p.readings) == maxReadings, p.size+len(reading) > maxReadingBytes:
		p.endless = true
	default:
		p.readings = append(p.readings, reading)
		p.size += len(reading)
	}
}

// isPlainPath reports whether p is a path that every server reads alike but
// for its case: no escapes, no dot segments, no doubled slashes, and only
// characters that mean themselves.
func isPlainPath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for i := range len(p) {
		c := p[i]
		if !isPlainByte(c) {
			return false
		}
		if c != '/' {
			continue
		}
		rest := p[i+1:]
		if rest != "" && rest[0] == '/' || startsWithDotSegment(rest) {
			return false
		}
	}
	return true
}

func isPlainByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return strings.IndexByte("/-_.~!$&'()*+,=:@", c) >= 0
	}
}

// startsWithDotSegment reports whether the first segment of p is "." or "..".
func startsWithDotSegment(p string) bool {
	if p == "" || p[0] != '.' {
		return false
	}
	p = strings.TrimPrefix(p[1:], ".")
	return p == "" || p[0] == '/'
}

// isOddPath reports whether a reading holds a part that servers take in
// different ways.
func isOddPath(p string) bool {
	if strings.Contains(p, "%2f") || strings.Contains(p, "%5c") {
		return true
	}
	for i := range len(p) {
		c := p[i]
		if c == ';' || c == '\\' || isControl(c) || c == '/' && startsWithDotSegment(p[i+1:]) {
			return true
		}
	}
	return false
}

func isControl(c byte) bool { return c < 0x20 || c == 0x7f }

// foldCase lower-cases p as a server that ignores case would, the two letters
// outside of ASCII that fold into it included.
func foldCase(p string) string {
	p = strings.ToLower(p) // takes the Kelvin sign to k
	return strings.ReplaceAll(p, "\u017f", "s")
}

// rooted gives p the leading slash that it has on the wire.
func rooted(p string) string {
	if strings.HasPrefix(p, "/") {
		return p
	}
	return "/" + p
}

// decodePercent decodes every valid percent-encoding and leaves the others as
// they are.
func decodePercent(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			high, low := fromHex(p[i+1]), fromHex(p[i+2])
			if high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, p[i])
	}
	return foldCase(string(b))
}

func fromHex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

func backslashAsSlash(p string) string { return strings.ReplaceAll(p, `\`, "/") }

// withoutParameters ends each segment at its first semicolon or control
// character: "/a;b/c" is "/a/c" to Java servers, and a NUL ends a C string.
func withoutParameters(p string) string {
	if strings.IndexFunc(p, endsSegment) < 0 {
		return p
	}
	segments := strings.Split(p, "/")
	for i, segment := range segments {
		if end := strings.IndexFunc(segment, endsSegment); end >= 0 {
			segments[i] = segment[:end]
		}
	}
	return strings.Join(segments, "/")
}

func endsSegment(r rune) bool { return r == ';' || r < 0x20 || r == 0x7f }

// withoutControls drops control characters, as the WHATWG URL parser does with
// tab and newline.
func withoutControls(p string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, p)
}

// beforeQuery ends the path at a question or number sign that was encoded: a
// proxy that decodes and writes it anew makes a query of the rest.
func beforeQuery(p string) string {
	if end := strings.IndexAny(p, "?#"); end >= 0 {
		return p[:end]
	}
	return p
}

func mergeSlashes(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// liesBelow reports whether a reading is prefix or lies below it, segment by
// segment, whatever the case. prefix is lower-case and has no slash at its end, but "/" is the
// root of everything.
func liesBelow(reading, prefix string) bool {
	if prefix == "/" {
		return true
	}
	n := len(prefix)
	return len(reading) >= n && strings.EqualFold(reading[:n], prefix) && (len(reading) == n || reading[n] == '/')
}

// sitePattern is the path of a PathRule: one path, or with prefix all that
// begin with it, as in Caddy's path matcher.
type sitePattern struct {
	path   string
	prefix bool
}

// matches reports whether any reading of p matches.
func (s sitePattern) matches(p *sitePath) bool {
	if p.plain != "" {
		return s.matchesReading(p.plain)
	}
	return slices.ContainsFunc(p.readings, s.matchesReading)
}

func (s sitePattern) matchesReading(reading string) bool {
	if s.prefix {
		return len(reading) >= len(s.path) && strings.EqualFold(reading[:len(s.path)], s.path)
	}
	// Most servers take "/a/" for "/a".
	return strings.EqualFold(strings.TrimSuffix(reading, "/"), strings.TrimSuffix(s.path, "/"))
}

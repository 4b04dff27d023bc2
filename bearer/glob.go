package bearer

import (
	"path"
	"slices"
	"strings"
)

// glob is a pattern in which "*" stands for any run of characters.
type glob string

func (g glob) matches(name string) bool {
	pattern := string(g)
	// star is where the last * seen stands, and from where in name it is tried.
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// uriGlob is a pattern for URIs. URIs have many spellings, and which of them mean
// the same is for the server to decide. A rule asks for scopes, so that it is
// safe to match too much: it matches when it does in any reading.
type uriGlob struct {
	written, folded glob
}

func newURIGlob(pattern string) uriGlob {
	return uriGlob{glob(pattern), glob(strings.ToLower(pattern))}
}

// matches takes the readings of readURI, of which the first is as written.
func (g uriGlob) matches(readings []string) bool {
	return g.written.matches(readings[0]) || slices.ContainsFunc(readings[1:], g.folded.matches)
}

// maxURIEscapes is how many times over a URI may be escaped.
const maxURIEscapes = 4

// readURI returns uri, and its readings in lower case: as it is and with escapes
// decoded, once and again; each of them with dot segments and doubled slashes
// resolved; each with and without query, fragment and slash at the end. endless
// means that it is escaped more often than that.
func readURI(uri string) (readings []string, endless bool) {
	readings = append(make([]string, 0, 4), uri)
	add := func(reading string) {
		if reading = strings.ToLower(reading); !slices.Contains(readings[1:], reading) {
			readings = append(readings, reading)
		}
	}
	for range maxURIEscapes {
		add(uri)
		bare := uri
		if end := strings.IndexAny(uri, "?#"); end >= 0 {
			bare = uri[:end]
		}
		for _, reading := range [...]string{uri, bare} {
			clean := cleanURI(reading)
			add(clean)
			add(strings.TrimSuffix(clean, "/"))
			if file := hostlessFile(clean); file != "" {
				add(file)
				add(strings.TrimSuffix(file, "/"))
			}
		}
		decoded := unescapeURI(uri)
		if decoded == uri {
			return readings, false
		}
		uri = decoded
	}
	return readings, true
}

// unescapeURI decodes the escapes that are valid.
func unescapeURI(uri string) string {
	if !strings.Contains(uri, "%") {
		return uri
	}
	b := make([]byte, 0, len(uri))
	for i := 0; i < len(uri); i++ {
		if uri[i] == '%' && i+2 < len(uri) {
			high, low := hexDigit(uri[i+1]), hexDigit(uri[i+2])
			if high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, uri[i])
	}
	return string(b)
}

// hostlessFile returns the file URI without the host of a clean URI: which hosts
// are this one is not to be told from the outside. A path that begins with two
// slashes is one of a file, too. "" if it is neither.
func hostlessFile(clean string) string {
	if rest, ok := strings.CutPrefix(clean, "//"); ok {
		return "file:///" + rest
	}
	if len(clean) < len("file://") || !strings.EqualFold(clean[:len("file://")], "file://") {
		return ""
	}
	rest := clean[len("file://"):]
	slash := strings.IndexByte(rest, '/')
	if slash <= 0 {
		return ""
	}
	return "file://" + rest[slash:]
}

// isURLBlank reports whether URL parsers drop r from both ends.
func isURLBlank(r rune) bool { return r <= ' ' }

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// cleanURI resolves dot segments and doubled slashes behind the authority, takes
// a backslash for a slash, and gives file URIs their usual form (RFC 8089
// appendix B). Blanks around it are none of it (URL standard, "URL parsing").
func cleanURI(uri string) string {
	uri = strings.ReplaceAll(strings.TrimFunc(uri, isURLBlank), `\`, "/")
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || strings.Contains(scheme, "/") {
		scheme, rest = "", uri
	} else {
		scheme += ":"
	}
	authority := ""
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		host, _, _ := strings.Cut(after, "/")
		authority, rest = "//"+host, after[len(host):]
	}
	if strings.EqualFold(scheme, "file:") && (authority == "" || strings.EqualFold(authority, "//localhost")) {
		authority, rest = "//", "/"+rest
	}
	if rest != "" {
		clean := path.Clean(rest)
		if strings.HasSuffix(rest, "/") && clean != "/" {
			clean += "/"
		}
		rest = clean
	}
	return scheme + authority + rest
}

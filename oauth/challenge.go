package oauth

import (
	"net/http"
	"strings"
)

// Challenge is one challenge of a WWW-Authenticate header (RFC 9110 §11.6.1).
type Challenge struct {
	// Scheme is as the server spelled it; compare it without case.
	Scheme string
	// Params has the parameters by their names in lower case. Of a name that
	// comes twice the first counts. A token68, as in "Negotiate YII=", is kept
	// under the empty name.
	Params map[string]string
}

// takesTokens reports whether the challenge is for tokens of this module's kind: Bearer
// (RFC 6750), or DPoP (RFC 9449 §7.1), which takes the same parameters.
func (c *Challenge) takesTokens() bool {
	return strings.EqualFold(c.Scheme, "Bearer") || strings.EqualFold(c.Scheme, "DPoP")
}

// ParseChallenges returns the challenges of all the values of WWW-Authenticate
// in their order. It reads RFC 9110 §11.6.1 and what servers send besides:
// unquoted values with any characters but spaces and commas, parameters
// separated by spaces, stray commas. What it cannot understand it skips. Time
// and memory are linear in the input.
func ParseChallenges(headers []string) []Challenge {
	var challenges []Challenge
	for _, header := range headers {
		p := challengeParser{rest: header}
		challenges = append(challenges, p.parse()...)
	}
	return challenges
}

// challengeParser reads one header value from left to right.
type challengeParser struct {
	rest string
}

func (p *challengeParser) parse() []Challenge {
	var challenges []Challenge
	for {
		p.rest = strings.TrimLeft(p.rest, " \t,")
		if p.rest == "" {
			return challenges
		}
		if p.rest[0] == '"' { // a quoted string that belongs to nothing
			p.quoted()
			continue
		}
		word := p.until(" \t,=\"")
		if after := strings.TrimLeft(p.rest, " \t"); strings.HasPrefix(after, "=") {
			p.rest = strings.TrimLeft(after[1:], " \t")
			value, ok := p.value()
			if ok && isToken(word) && len(challenges) > 0 {
				set(challenges[len(challenges)-1].Params, strings.ToLower(word), value)
			}
			continue
		}
		if !isToken(word) {
			continue
		}
		challenge := Challenge{Scheme: word, Params: map[string]string{}}
		if token, ok := p.token68(); ok {
			challenge.Params[""] = token
		}
		challenges = append(challenges, challenge)
	}
}

func set(params map[string]string, name, value string) {
	if _, twice := params[name]; !twice {
		params[name] = value
	}
}

// until takes what comes before the first of the delimiters.
func (p *challengeParser) until(delimiters string) string {
	i := strings.IndexAny(p.rest, delimiters)
	if i < 0 {
		i = len(p.rest)
	}
	taken := p.rest[:i]
	p.rest = p.rest[i:]
	return taken
}

// value takes a quoted string, or what comes before the next space or comma:
// servers send URLs unquoted, which the token grammar does not allow.
func (p *challengeParser) value() (string, bool) {
	if strings.HasPrefix(p.rest, `"`) {
		return p.quoted()
	}
	return p.until(" \t,"), true
}

// quoted takes a quoted string (RFC 9110 §5.6.4). One without an end takes all
// that is left and is not ok: half a URL is none.
func (p *challengeParser) quoted() (string, bool) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return "", false
}

// token68 takes a token68 that follows a scheme: alone up to a comma or the
// end, so that it is neither a parameter nor the next scheme.
func (p *challengeParser) token68() (string, bool) {
	s := strings.TrimLeft(p.rest, " \t")
	if len(s) == len(p.rest) {
		return "", false // no space after the scheme
	}
	n := 0
	for n < len(s) && (isAlpha(s[n]) || isDigit(s[n]) || strings.IndexByte("-._~+/", s[n]) >= 0) {
		n++
	}
	if n == 0 {
		return "", false
	}
	for n < len(s) && s[n] == '=' {
		n++
	}
	after := strings.TrimLeft(s[n:], " \t")
	if after != "" && after[0] != ',' {
		return "", false
	}
	p.rest = after
	return s[:n], true
}

// isToken is the token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlpha(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// ExtractResourceMetadataURL returns the resource_metadata of the first Bearer
// or DPoP challenge in which it is an absolute http or https URL (RFC 9728
// §5.1), "" if there is none. Whether to trust the URL is the caller's question.
func ExtractResourceMetadataURL(h http.Header) string {
	return ExtractChallengeParams(h).ResourceMetadataURL
}

// ChallengeParams is what a client wants to know of a 401 or 403, the SDK's
// extractWWWAuthenticateParams. What the server did not send is "".
type ChallengeParams struct {
	ResourceMetadataURL string
	// Scope is the space-separated scope to ask for (RFC 6750 §3).
	Scope            string
	Error            string
	ErrorDescription string
}

// ExtractChallengeParams returns the parameters of the Bearer and DPoP
// challenges in all WWW-Authenticate headers, each from the first challenge
// that has it. A resource_metadata that is no absolute http or https URL counts
// as absent.
func ExtractChallengeParams(h http.Header) ChallengeParams {
	var found ChallengeParams
	for _, c := range ParseChallenges(h.Values("Www-Authenticate")) {
		if !c.takesTokens() {
			continue
		}
		if found.ResourceMetadataURL == "" && isHTTPURL(c.Params["resource_metadata"]) {
			found.ResourceMetadataURL = c.Params["resource_metadata"]
		}
		first(&found.Scope, c.Params["scope"])
		first(&found.Error, c.Params["error"])
		first(&found.ErrorDescription, c.Params["error_description"])
	}
	return found
}

func first(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// isHTTPURL reports whether s is an absolute http or https URL that says where
// to go and nothing else.
func isHTTPURL(s string) bool {
	u, err := splitURI(s)
	return err == nil && u.isHTTP() && u.checkHTTP() == nil && !u.hasUserinfo
}

// FormatChallenge writes a challenge: the scheme, then the parameters, each a
// name and a value, in their order and as quoted strings. A parameter with an
// empty value is left out. Quotes and backslashes are escaped, and every byte
// outside printable ASCII becomes a space, so that no value can end the header
// or start another one.
func FormatChallenge(scheme string, params ...[2]string) string {
	size := len(scheme)
	for _, param := range params {
		size += len(param[0]) + len(param[1]) + len(`, =""`)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(scheme)
	separator := " "
	for _, param := range params {
		name, value := param[0], param[1]
		if value == "" || !isToken(name) {
			continue
		}
		b.WriteString(separator)
		b.WriteString(name)
		b.WriteString(`="`)
		separator = ", "
		plain := 0 // from here on value has nothing to be escaped
		for i := range len(value) {
			switch c := value[i]; {
			case c < 0x20 || c > 0x7e:
				b.WriteString(value[plain:i])
				b.WriteByte(' ')
				plain = i + 1
			case c == '"' || c == '\\':
				b.WriteString(value[plain:i])
				b.WriteByte('\\')
				plain = i
			}
		}
		b.WriteString(value[plain:])
		b.WriteByte('"')
	}
	return b.String()
}

package authclient

import (
	"slices"
	"strings"
)

// maxIssuers is of how many authorization servers a store keeps credentials:
// an MCP server has one, and sometimes moves to another.
const maxIssuers = 8

// maxLogins is how many logins may be under way in one store.
const maxLogins = 8

// record is all that a store keeps. Its methods never change a value that was
// handed out or in.
type record struct {
	// Clients and Tokens are by issuer.
	Clients map[string]*ClientInformation `json:"clients,omitempty"`
	Tokens  map[string]*Tokens            `json:"tokens,omitempty"`
	// Client and Token are the issuers of those saved last.
	Client string `json:"client,omitempty"`
	Token  string `json:"token,omitempty"`

	CodeVerifier string `json:"code_verifier,omitempty"`
	// Earlier are the verifiers of other logins under way, the newest last.
	Earlier []string `json:"earlier_code_verifiers,omitempty"`

	Discovery *DiscoveryState `json:"discovery,omitempty"`
}

// keyOf is the issuer without a slash at its end, for what sameIssuer calls the
// same has one entry.
func keyOf(issuer string) string { return strings.TrimSuffix(issuer, "/") }

func (r *record) client(issuer string) *ClientInformation {
	if issuer == "" {
		issuer = r.Client
	}
	if c := r.Clients[keyOf(issuer)]; c != nil {
		return c
	}
	return r.Clients[""] // not bound yet
}

func (r *record) tokens(issuer string) *Tokens {
	if issuer == "" {
		issuer = r.Token
	}
	if t := r.Tokens[keyOf(issuer)]; t != nil {
		return t
	}
	return r.Tokens[""]
}

func (r *record) saveClient(c *ClientInformation) {
	if r.Clients == nil {
		r.Clients = make(map[string]*ClientInformation)
	}
	r.Client = keyOf(c.Issuer)
	makeRoom(r.Clients, r.Client)
	r.Clients[r.Client] = c
}

func (r *record) saveTokens(t *Tokens) {
	if r.Tokens == nil {
		r.Tokens = make(map[string]*Tokens)
	}
	r.Token = keyOf(t.Issuer)
	makeRoom(r.Tokens, r.Token)
	r.Tokens[r.Token] = t
}

// makeRoom drops what has no issuer, which counts as bound from now on, and
// another one if the map is full.
func makeRoom[T any](m map[string]T, key string) {
	delete(m, "")
	for other := range m {
		if len(m) < maxIssuers {
			return
		}
		if other != key {
			delete(m, other)
		}
	}
}

// saveVerifier keeps the verifier, and those of logins that others have begun
// with the same store.
func (r *record) saveVerifier(verifier string) {
	all := append(r.verifiers(), verifier)
	all = all[max(0, len(all)-maxLogins):]
	r.Earlier, r.CodeVerifier = all[:len(all)-1], verifier
}

func (r *record) verifiers() []string {
	all := slices.Clone(r.Earlier)
	if r.CodeVerifier != "" {
		all = append(all, r.CodeVerifier)
	}
	return all
}

// forgetVerifier forgets that of a login that is finished.
func (r *record) forgetVerifier(verifier string) {
	all := slices.DeleteFunc(r.verifiers(), func(v string) bool { return v == verifier })
	r.Earlier, r.CodeVerifier = nil, ""
	if n := len(all); n > 0 {
		r.Earlier, r.CodeVerifier = all[:n-1], all[n-1]
	}
}

func (r *record) invalidate(scope CredentialScope, issuer string) {
	all := scope == CredentialsAll
	if all || scope == CredentialsClient {
		forget(r.Clients, issuer)
	}
	if all || scope == CredentialsTokens {
		forget(r.Tokens, issuer)
	}
	if all || scope == CredentialsVerifier {
		r.Earlier, r.CodeVerifier = nil, ""
	}
	if all || scope == CredentialsDiscovery {
		r.Discovery = nil
	}
}

func forget[T any](m map[string]T, issuer string) {
	if issuer == "" {
		clear(m)
		return
	}
	delete(m, keyOf(issuer))
	delete(m, "")
}

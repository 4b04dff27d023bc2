package idp

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

const googleIssuer = "https://accounts.google.com"

// GoogleOptions configure Google.
type GoogleOptions struct {
	Common
	// HostedDomain lets in only the accounts of one Workspace domain. It is also
	// sent to Google, so that the user is offered those accounts.
	HostedDomain string
	// RevokeUpstream has Revoke ask Google. Google then takes back all that the
	// user ever granted to this client id, the user's other MCP clients
	// included, so it is off unless configured.
	RevokeUpstream bool
}

// NewGoogle returns Google. Scopes are openid email profile unless configured.
func NewGoogle(o GoogleOptions) (Upstream, error) {
	if o.HostedDomain != "" && !isDomain(o.HostedDomain) {
		return nil, fmt.Errorf("hosted domain %q is not a domain such as example.com", o.HostedDomain)
	}
	for _, name := range []string{"hd", "access_type"} {
		if _, ok := o.Params[name]; ok {
			return nil, errors.New("the authorization parameters hd and access_type are set by the Google preset: drop them")
		}
	}
	domain := strings.ToLower(o.HostedDomain)
	return newOIDC(o.Common, googleIssuer, "", quirks{
		name:         "Google",
		open:         true,
		noRevocation: !o.RevokeUpstream,
		neverScopes:  []string{"offline_access"}, // access_type instead; Google answers invalid_scope
		authParams:   func(r AuthRequest, q url.Values) { googleParams(r, domain, q) },
		identity: func(id *Identity, c claims) error {
			id.HostedDomain = strings.ToLower(c.str("hd"))
			id.EmailVerified = id.EmailVerified && googleVouches(id.Email, id.HostedDomain)
			// hd of the request only changes what the user is offered.
			if domain != "" && id.HostedDomain != domain {
				return denied("access_denied", "the Google account does not belong to the hosted domain %s", domain)
			}
			return nil
		},
	}, "openid", "email", "profile")
}

// googleParams asks for a refresh token. Google gives one only for
// access_type=offline, and to a user who has consented before only with
// prompt=consent (https://github.com/jlowin/fastmcp/pull/2438,
// https://developers.google.com/identity/protocols/oauth2/web-server#offline).
func googleParams(r AuthRequest, domain string, q url.Values) {
	if domain != "" {
		q.Set("hd", domain)
	}
	prompts := strings.Fields(r.Prompt)
	// Google knows no login; choosing an account is the nearest.
	if i := slices.Index(prompts, "login"); i >= 0 {
		prompts[i] = "select_account"
	}
	if !r.MinimalScope {
		q.Set("access_type", "offline")
		if !slices.Contains(prompts, "none") {
			prompts = append(prompts, "consent")
		}
	}
	slices.Sort(prompts)
	if prompts = slices.Compact(prompts); len(prompts) > 0 {
		q.Set("prompt", strings.Join(prompts, " "))
	}
}

// googleVouches reports whether Google is authoritative for the address, and
// not only once saw the user receive mail there
// (https://developers.google.com/identity/gsi/web/guides/verify-google-id-token).
func googleVouches(email, hostedDomain string) bool {
	_, domain, _ := splitEmail(email)
	return hostedDomain != "" || equalDomain(domain, "gmail.com") || equalDomain(domain, "googlemail.com")
}

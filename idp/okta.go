package idp

import (
	"fmt"
	"strings"
)

// OktaOptions configure Okta.
type OktaOptions struct {
	Common
	// Domain is the organization's, such as example.okta.com.
	Domain string
	// AuthorizationServer is the id of a custom authorization server, such as
	// default; empty is the organization's own.
	AuthorizationServer string
	// GroupsClaim is groups if empty.
	GroupsClaim string
}

// NewOkta returns Okta. Scopes are openid profile email offline_access unless
// configured, and groups if they are needed; which groups the claim holds is
// set at the app in Okta.
func NewOkta(o OktaOptions) (Upstream, error) {
	path := ""
	if o.AuthorizationServer != "" {
		if strings.Trim(o.AuthorizationServer, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			return nil, fmt.Errorf("authorization server %q is not an id such as default", o.AuthorizationServer)
		}
		path = "/oauth2/" + o.AuthorizationServer
	}
	issuer, err := issuerOfHost("domain", o.Domain, path, "example.okta.com")
	if err != nil {
		return nil, err
	}
	scopes := []string{"openid", "profile", "email", "offline_access"}
	if o.Groups {
		scopes = append(scopes, "groups")
	}
	return newOIDC(o.Common, issuer, o.GroupsClaim, quirks{name: "Okta"}, scopes...)
}

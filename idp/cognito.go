package idp

import (
	"fmt"
	"strings"
)

// CognitoOptions configure an Amazon Cognito user pool.
type CognitoOptions struct {
	Common
	// PoolURL is the pool's issuer, such as
	// https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI. It needs
	// a domain (hosted UI, managed login), whose endpoints are discovered.
	PoolURL string
}

// NewCognito returns an Amazon Cognito user pool. Scopes are openid email
// profile unless configured. offline_access is never sent: Cognito refuses it
// and gives a refresh token without
// (https://github.com/jlowin/fastmcp/issues/2139). The issuer's host is not
// that of the endpoints. Groups are those of cognito:groups, which is in the
// id_token only.
func NewCognito(o CognitoOptions) (Upstream, error) {
	pool := strings.TrimSuffix(o.PoolURL, "/")
	if !strings.Contains(pool, "://cognito-idp.") {
		return nil, fmt.Errorf("pool URL %q: write the issuer of the user pool, as in https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI, not the domain of its login pages", o.PoolURL)
	}
	return newOIDC(o.Common, pool, "cognito:groups", quirks{
		name:        "Amazon Cognito",
		noUserInfo:  o.Groups, // it would tell that there are none
		neverScopes: []string{"offline_access"},
	}, "openid", "email", "profile")
}

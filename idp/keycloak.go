package idp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

// KeycloakOptions configure a Keycloak realm.
type KeycloakOptions struct {
	Common
	// RealmURL is the realm's issuer, such as
	// https://sso.example.com/realms/example.
	RealmURL string
	// GroupsClaim is groups if empty; a mapper at the client has to add it.
	GroupsClaim string
}

// NewKeycloak returns a Keycloak realm. Scopes are openid profile email
// offline_access unless configured: without the latter the refresh token ends
// with the browser's session, half an hour after its last use.
//
// Groups are those of the claim, without the slash that full paths begin with,
// and the realm roles, each as role:<name>.
func NewKeycloak(o KeycloakOptions) (Upstream, error) {
	realm := strings.TrimSuffix(o.RealmURL, "/")
	if !strings.Contains(realm, "/realms/") {
		return nil, fmt.Errorf("realm URL %q has no /realms/: write it as in https://sso.example.com/realms/example", o.RealmURL)
	}
	return newOIDC(o.Common, realm, o.GroupsClaim, quirks{name: hostOf(realm), groups: keycloakGroups},
		"openid", "profile", "email", "offline_access")
}

func keycloakGroups(ctx context.Context, u *oidcUpstream, c claims, accessToken string) ([]string, error) {
	groups := c.list(u.groupsClaim)
	for i, g := range groups {
		groups[i] = strings.TrimPrefix(g, "/")
	}
	roles := c.list("realm_access.roles")
	if roles == nil && u.Groups {
		// Unless a mapper says otherwise, the roles are in the access token only.
		access, err := keycloakAccessToken(ctx, u, c.str("sub"), accessToken)
		if err != nil {
			return nil, err
		}
		roles = access.list("realm_access.roles")
	}
	for _, role := range roles {
		groups = append(groups, "role:"+role)
	}
	return groups, nil
}

// keycloakAccessToken returns the claims of the access token, which is a JWT of
// the realm's, or none if it is something else or about somebody else.
func keycloakAccessToken(ctx context.Context, u *oidcUpstream, subject, raw string) (claims, error) {
	if strings.Count(raw, ".") != 2 {
		return nil, nil
	}
	payload := &payloadKeeper{KeySet: u.keys}
	_, err := oidc.NewVerifier(u.issuer, payload, &oidc.Config{
		SkipClientIDCheck:    true, // azp below
		SkipExpiryCheck:      true, // it says what the realm said when it was issued
		SupportedSigningAlgs: algorithms[:],
	}).Verify(ctx, raw)
	if errors.Is(payload.err, errKeys) {
		return nil, trouble(payload.err, "its access token cannot be read")
	}
	var c claims
	if err != nil || unmarshal(payload.payload, &c) != nil ||
		c.str("iss") != u.issuer || c.str("sub") != subject || c.str("azp") != u.ClientID {
		return nil, nil
	}
	return c, nil
}

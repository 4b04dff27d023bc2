package idp

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// EntraOptions configure Microsoft Entra ID (v2.0 endpoints).
type EntraOptions struct {
	Common
	// Tenant is the tenant's id or one of its domains, or common, organizations
	// or consumers for accounts of many tenants. With the latter no mail address
	// counts, since any tenant may claim any.
	Tenant string
	// BaseURL is the cloud, https://login.microsoftonline.com if empty.
	BaseURL string
	// GroupsClaim is groups if empty; roles takes the app roles.
	GroupsClaim string
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

const (
	// consumersTenant is the tenant of all personal Microsoft accounts.
	consumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
	// tenantPlace stands in the issuer of a document that is for many tenants.
	tenantPlace = "{tenantid}"
)

// NewEntra returns Microsoft Entra ID. Scopes are openid profile email
// offline_access unless configured; those of an API are written in full, as in
// api://<id>/<scope> (https://github.com/anthropics/claude-ai-mcp/issues/977).
//
// A user is the tenant's issuer and sub, which Entra makes for each app; oid
// and tid are kept as claims.
//
// No resource parameter is ever sent, whatever the client asked for: the v2.0
// endpoints refuse it beside scopes, AADSTS901002 and AADSTS9010010
// (https://github.com/microsoft/powerbi-modeling-mcp/issues/68). The scopes are
// sent again at refresh, for without them Entra narrows them
// (https://github.com/stacklok/toolhive/pull/5096). Its userinfo belongs to
// Microsoft Graph and refuses tokens for other APIs, so it is not used; there
// is no revocation endpoint.
func NewEntra(o EntraOptions) (Upstream, error) {
	tenant := strings.ToLower(o.Tenant)
	shared := tenant == "common" || tenant == "organizations" || tenant == "consumers"
	if !shared && !guid.MatchString(tenant) && !isDomain(tenant) {
		return nil, fmt.Errorf("tenant %q: write the tenant id, one of its domains, or common, organizations or consumers", o.Tenant)
	}
	if _, ok := o.Params["resource"]; ok {
		return nil, errors.New("the parameter resource is refused by Entra: write the scope of the API in full, as in api://<id>/<scope>")
	}
	if o.BaseURL == "" {
		o.BaseURL = "https://login.microsoftonline.com"
	}
	base := strings.TrimSuffix(o.BaseURL, "/") + "/"
	if o.Claims == nil {
		o.Claims = append(defaultClaims[:], "oid", "tid")
	}
	e := &entra{base: base, tenant: tenant, shared: shared}
	return newOIDC(o.Common, base+tenant+"/v2.0", o.GroupsClaim, quirks{
		name:          "Microsoft",
		open:          shared,
		acceptsIssuer: e.acceptsIssuer,
		tokenIssuer:   e.tokenIssuer,
		refreshScope:  true,
		noUserInfo:    true,
		noRevocation:  true,
		identity: func(id *Identity, c claims) error {
			// Entra has no email_verified. In one's own tenant the administrators
			// decide about addresses; elsewhere an address is what somebody typed
			// (https://www.descope.com/blog/post/noauth).
			id.EmailVerified = id.Email != "" && !shared
			return nil
		},
		groups: e.groups,
	}, "openid", "profile", "email", "offline_access")
}

type entra struct {
	base, tenant string
	shared       bool
}

// tenantOf is the tenant in an issuer of this cloud.
func (e *entra) tenantOf(issuer string) string {
	rest, ok := strings.CutPrefix(issuer, e.base)
	if !ok {
		return ""
	}
	tenant, ok := strings.CutSuffix(rest, "/v2.0")
	if !ok {
		return ""
	}
	return tenant
}

// acceptsIssuer: the document of a domain or of consumers names the tenant's
// id, that of common and organizations a template.
func (e *entra) acceptsIssuer(issuer string) error {
	tenant := e.tenantOf(issuer)
	switch {
	case e.shared && tenant == tenantPlace:
		return nil
	case guid.MatchString(tenant) && (tenant == e.tenant || isDomain(e.tenant) || e.tenant == "consumers" && tenant == consumersTenant):
		return nil
	}
	return fmt.Errorf("the document is of issuer %.200q, which is not of tenant %q", issuer, e.tenant)
}

// tokenIssuer fills the token's own tenant into the template
// (https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens#validate-the-issuer).
func (e *entra) tokenIssuer(documentIssuer string, c claims) (string, error) {
	tenant := c.str("tid")
	if e.tenantOf(documentIssuer) != tenantPlace {
		return documentIssuer, nil
	}
	switch {
	case !guid.MatchString(tenant):
		return "", errors.New("its tid is no tenant id")
	case e.tenant == "consumers" && tenant != consumersTenant, e.tenant == "organizations" && tenant == consumersTenant:
		return "", fmt.Errorf("its tid is not of %s", e.tenant)
	}
	return e.base + tenant + "/v2.0", nil
}

// groups are in the token up to 200; beyond, it only says where to ask.
func (e *entra) groups(_ context.Context, u *oidcUpstream, c claims, _ string) ([]string, error) {
	names, _ := c["_claim_names"].(map[string]any)
	if _, elsewhere := names[u.groupsClaim]; (elsewhere || c.is("hasgroups")) && u.complaints.due("overage", u.Now()) {
		u.Logger.Warn("a user has more groups than Entra puts into a token, so none counts; use app roles, or assign to the app only the groups that matter")
	}
	return c.list(u.groupsClaim), nil
}

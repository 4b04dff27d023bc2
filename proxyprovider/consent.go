package proxyprovider

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Bounds of what is shown of a stranger's texts, in characters.
const (
	maxShownName = 60
	maxShownHost = 120
	maxShownURI  = 300
)

// askConsent shows the consent page. who is set if the question comes after the
// login, because it was somebody else who allowed the client before.
func (b *browserFlow) askConsent(w http.ResponseWriter, r *http.Request, seals *brokerSeals, c *oauth.Client, tx *transaction, who *idp.Identity) error {
	asked := *tx
	asked.approval = notYet
	account := ""
	if who != nil {
		asked.asUser = userHashOf(who)
		if b.cfg.Accounts != nil {
			account = who.Subject
		}
		// It should be the same user who signs in once more.
		if who.Email != "" && len(who.Email) <= maxLoginHint {
			asked.request.loginHint = who.Email
		}
	}
	form, err := b.sealForm(w, r, seals, consentForm, account, &asked)
	if err != nil {
		return err
	}
	request := &tx.request
	resource := cmp.Or(request.resource, b.unnamed)
	page := pages.Consent{
		Action:      b.path(consentPath),
		Request:     form,
		Client:      b.shownClient(c),
		Resource:    pages.ConsentResource{Name: b.resourceName(resource), URL: resource},
		Redirect:    shownRedirect(request.redirectURI),
		Provider:    b.provider,
		Connections: b.connections,
	}
	page.Redirect.Foreign = page.Client.Document && !page.Client.Preregistered && !sameHost(c.ClientID, request.redirectURI)
	for _, scope := range request.scopes {
		page.Scopes = append(page.Scopes, pages.ConsentScope{Name: scope, Description: b.cfg.ScopeDescriptions[scope]})
	}
	if who != nil {
		page.User = accountLabel(who)
	}
	if days := int(b.cfg.Consent.Remember / (24 * time.Hour)); days > 0 && !asked.asksAlways && mayBeSilent(request.redirectURI) {
		page.RememberDays = strconv.Itoa(days)
	}
	b.site.WriteConsent(w, r, tx.language(r), page)
	return nil
}

// shownClient is what the page says of the client.
func (b *browserFlow) shownClient(c *oauth.Client) pages.ConsentClient {
	shown := pages.ConsentClient{
		Name:          pages.Clean(c.ClientName, maxShownName),
		Preregistered: b.preregistered(c),
		Document:      isMetadataDocument(c.ClientID),
		Host:          shownHost(c.ClientURI),
	}
	switch {
	case shown.Preregistered && shown.Name == "":
		shown.Name = pages.Clean(c.ClientID, maxShownName) // the operator chose it
	case shown.Document:
		shown.Host = shownHost(c.ClientID)
	}
	return shown
}

// resourceName is what people call the resource.
func (b *browserFlow) resourceName(resource string) string {
	if name := pages.Clean(b.cfg.ResourceNames[resource], maxShownName); name != "" {
		return name
	}
	return shownHost(resource)
}

// shownHost is the host of a URL with its port, "" if it is no URL.
func shownHost(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return pages.Clean(strings.ToLower(u.Host), maxShownHost)
}

// sameHost reports whether two URLs have the same host, whatever the port.
func sameHost(a, b string) bool {
	u, errA := url.Parse(a)
	v, errB := url.Parse(b)
	return errA == nil && errB == nil && strings.EqualFold(u.Hostname(), v.Hostname())
}

// shownRedirect is where the answer goes: what people compare is the host.
func shownRedirect(uri string) pages.ConsentRedirect {
	shown := pages.ConsentRedirect{Host: shownHost(uri), URI: pages.Clean(uri, maxShownURI), Device: !mayBeSilent(uri)}
	if u, err := url.Parse(uri); err == nil && u.Scheme != "https" && u.Scheme != "http" {
		shown.Host = pages.Clean(u.Scheme, maxShownHost) + ":"
	}
	return shown
}

// mayBeSilent reports whether a user need not be asked again for the redirect
// URI. One on this device may belong to any program on it (RFC 8252 §8.6).
func mayBeSilent(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && !oauth.IsLoopbackHost(u.Hostname())
}

// serveConsent takes the user's answer.
func (b *Broker) serveConsent(w http.ResponseWriter, r *http.Request) error {
	seals, form, err := b.consentAnswer(w, r)
	if err != nil || form == nil {
		return err
	}
	tx := form.tx
	tx.approval = clicked
	if form.account != "" {
		return b.allowAsAccount(w, r, seals, form)
	}
	if err := b.signIn(w, r, seals, tx); err != nil {
		return b.tellClient(w, r, &tx.request, err)
	}
	return nil
}

// consentAnswer reads the user's answer. Without an error, the form is nil if the
// user denied access and has been sent back to the client.
func (b *browserFlow) consentAnswer(w http.ResponseWriter, r *http.Request) (*brokerSeals, *browserForm, error) {
	values, err := b.readBrowserForm(w, r)
	if err != nil {
		return nil, nil, err
	}
	seals, err := b.seals.get()
	if err != nil {
		return nil, nil, err
	}
	form, err := b.openForm(r, seals, consentForm, values.Get("request"))
	if err != nil {
		return nil, nil, err
	}
	tx := form.tx
	if tx.purpose != forClient {
		return nil, nil, problem("tampered", http.StatusBadRequest, errors.New("a consent form that is for no client"))
	}
	if _, err := b.currentClient(r.Context(), &tx.request); err != nil {
		return nil, nil, err
	}
	switch values.Get("decision") {
	case "deny":
		return nil, nil, b.tellClient(w, r, &tx.request, oauth.ErrAccessDenied.Describe("The user denied access"))
	case "allow":
		return seals, form, nil
	}
	return nil, nil, problem("tampered", http.StatusBadRequest, errors.New("a consent form without an answer"))
}

// tellClient sends the browser to the client with an error. The redirect URI was
// proven when the login began, and is still the client's.
func (b *browserFlow) tellClient(w http.ResponseWriter, r *http.Request, request *authRequest, err error) error {
	e := oauth.AsError(err)
	attrs := []any{"client_hash", hashID(request.clientID), "error", e.Code, "description", e.Description, "remote_ip", b.cfg.ClientIP(r)}
	if cause := e.Unwrap(); cause != nil {
		attrs = append(attrs, "cause", cause.Error())
	}
	switch status := e.HTTPStatus(); {
	case errors.Is(e, oauth.ErrServerError):
		b.cfg.Logger.Error("a login failed", attrs...)
	case status >= http.StatusInternalServerError:
		b.cfg.Logger.Warn("a login failed", attrs...)
	default:
		b.cfg.Logger.Info("a login ended without access", attrs...)
	}
	location, err := b.answerTo(request).ErrorURL(e)
	if err != nil {
		return err
	}
	return seeOther(w, location)
}

// silentApproval tells whether the client need not be asked for.
func (b *browserFlow) silentApproval(seals *brokerSeals, r *http.Request, c *oauth.Client, request *authRequest) approval {
	switch {
	case !mayBeSilent(request.redirectURI):
		return notYet
	case slices.Contains(b.cfg.Consent.Skip, c.ClientID) && (b.preregistered(c) || isMetadataDocument(c.ClientID)):
		return skipped
	case b.remembers(seals, r, request, nil):
		return remembered
	}
	return notYet
}

// approvedBy reports whether the approval of the transaction is the word of the
// user who has signed in.
func (b *Broker) approvedBy(seals *brokerSeals, r *http.Request, tx *transaction, who *idp.Identity) bool {
	user := userHashOf(who)
	switch tx.approval {
	case clicked:
		// Before the login it was whoever is at the browser; after one it was that user.
		return tx.asUser == userHash{} || tx.asUser == user
	case remembered:
		return b.remembers(seals, r, &tx.request, &user)
	case skipped:
		return true
	case notYet:
	}
	return false
}

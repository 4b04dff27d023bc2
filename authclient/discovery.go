package authclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ErrNoMetadata: there is no metadata document at any of its places.
var ErrNoMetadata = errors.New("no metadata")

// What the requests of discovery are for, in words.
const (
	whatResourceMetadata = "protected resource metadata"
	whatServerMetadata   = "authorization server metadata"
)

// DiscoverProtectedResourceMetadata returns the metadata of o.ServerURL
// (RFC 9728 §3), the SDK's discoverOAuthProtectedResourceMetadata: from
// o.ResourceMetadataURL alone if it is set, else from the well-known place with
// the path and query of the server, then from the one without. The error is
// ErrNoMetadata if the server has none. Whether the document is for this server
// is the question of SelectResourceURL.
func DiscoverProtectedResourceMetadata(ctx context.Context, o Options) (*oauth.ProtectedResourceMetadata, error) {
	n, done, err := o.connected(o.ServerURL)
	if err != nil {
		return nil, err
	}
	defer done()
	return n.protectedResource(ctx, &o)
}

func (n *network) protectedResource(ctx context.Context, o *Options) (*oauth.ProtectedResourceMetadata, error) {
	places, err := protectedResourcePlaces(o)
	if err != nil {
		return nil, err
	}
	var trouble error
	for _, place := range places {
		m := new(oauth.ProtectedResourceMetadata)
		err := n.document(ctx, whatResourceMetadata, place, o, m)
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, ErrNoMetadata):
		case troubleOf(err) == notHere:
			return nil, err
		case trouble == nil:
			trouble = err
		}
	}
	if trouble != nil {
		return nil, trouble
	}
	return nil, fmt.Errorf("%w: the MCP server %s does not publish protected resource metadata (RFC 9728)", ErrNoMetadata, bareURL(o.ServerURL))
}

// resourceMetadata is protectedResource, and if there is nothing at
// o.ResourceMetadataURL any more, that of the well-known places. url is the
// ResourceMetadataURL that led there.
func (n *network) resourceMetadata(ctx context.Context, o *Options) (m *oauth.ProtectedResourceMetadata, url string, err error) {
	m, err = n.protectedResource(ctx, o)
	if o.ResourceMetadataURL == "" || !errors.Is(err, ErrNoMetadata) {
		return m, o.ResourceMetadataURL, err
	}
	wellKnown := *o
	wellKnown.ResourceMetadataURL = ""
	m, err = n.protectedResource(ctx, &wellKnown)
	return m, "", err
}

func protectedResourcePlaces(o *Options) ([]string, error) {
	if o.ResourceMetadataURL != "" {
		return []string{o.ResourceMetadataURL}, nil
	}
	place, err := oauth.ProtectedResourceMetadataURL(o.ServerURL)
	if err != nil {
		return nil, err
	}
	server, err := parseURL("the MCP server's URL", o.ServerURL)
	if err != nil {
		return nil, err
	}
	root := originOf(server) + oauth.WellKnownPath(oauth.WellKnownProtectedResource, "")
	if server.RawQuery == "" && place == root {
		return []string{root}, nil
	}
	if server.RawQuery != "" {
		place += "?" + server.RawQuery
	}
	if strings.Trim(server.Path, "/") == "" {
		return []string{place}, nil
	}
	return []string{place, root}, nil
}

// DiscoverAuthorizationServerMetadata returns the metadata of the authorization
// server with the URL (RFC 8414 §3, OpenID Connect Discovery 1.0 §4), the SDK's
// function of that name. The issuer in it must be the URL, but for one slash at
// the end of the URL, unless o.SkipIssuerMetadataValidation. The error is
// ErrNoMetadata if there is none. Without o.ServerURL the URL counts as one that
// the caller chose.
func DiscoverAuthorizationServerMetadata(ctx context.Context, serverURL string, o Options) (*oauth.Metadata, error) {
	n, done, err := o.connected(serverURL)
	if err != nil {
		return nil, err
	}
	defer done()
	return n.authorizationServer(ctx, serverURL, &o)
}

func (n *network) authorizationServer(ctx context.Context, serverURL string, o *Options) (*oauth.Metadata, error) {
	if _, err := parseURL("the authorization server's URL", serverURL); err != nil {
		return nil, err
	}
	places, err := oauth.AuthorizationServerMetadataURLs(serverURL)
	if err != nil {
		return nil, err
	}
	var trouble error
	for _, place := range places {
		m := new(oauth.Metadata)
		err := n.document(ctx, whatServerMetadata, place, o, m)
		switch {
		case err == nil:
		case errors.Is(err, ErrNoMetadata):
			continue
		case troubleOf(err) == notHere:
			return nil, err
		default:
			if trouble == nil {
				trouble = err
			}
			continue
		}
		// RFC 8414 §3.3. The slash is that of an origin which the client made.
		if m.Issuer != serverURL && m.Issuer+"/" != serverURL && !o.SkipIssuerMetadataValidation {
			return nil, &IssuerMismatchError{Kind: mismatchMetadata, Expected: serverURL, Received: m.Issuer}
		}
		return m, checkMetadata(m)
	}
	if trouble != nil {
		return nil, trouble
	}
	return nil, fmt.Errorf("%w: the authorization server %s does not publish metadata (RFC 8414)", ErrNoMetadata, bareURL(serverURL))
}

// checkMetadata is what every use of the metadata relies on.
func checkMetadata(m *oauth.Metadata) error {
	if m.TokenEndpoint == "" {
		return fmt.Errorf("%w: its metadata have no token_endpoint", ErrIncompatible)
	}
	return nil
}

// DiscoverOAuthServerInfo finds the authorization server of o.ServerURL, the
// SDK's function of that name. A server without protected resource metadata, or
// whose metadata name no authorization server, is one of revision 2025-03-26,
// whose authorization server is at its origin.
func DiscoverOAuthServerInfo(ctx context.Context, o Options) (*DiscoveryState, error) {
	n, done, err := o.connected(o.ServerURL)
	if err != nil {
		return nil, err
	}
	defer done()
	return n.serverInfo(ctx, &o)
}

func (n *network) serverInfo(ctx context.Context, o *Options) (*DiscoveryState, error) {
	resource, place, err := n.resourceMetadata(ctx, o)
	if err == nil || errors.Is(err, ErrNoMetadata) {
		return n.serverInfoFor(ctx, resource, place, o)
	}
	if found := n.behindPages(ctx, err, o); found != nil {
		return found, nil
	}
	return nil, err
}

// behindPages is what there is to find where a web application answers every
// path that it does not know, nil without proof: a server without resource
// metadata whose authorization server, at its origin, publishes its own.
func (n *network) behindPages(ctx context.Context, err error, o *Options) *DiscoveryState {
	if troubleOf(err) != aPage {
		return nil
	}
	found, err := n.serverInfoFor(ctx, nil, "", o)
	if err != nil || found.AuthorizationServer == nil {
		return nil
	}
	return found
}

// serverInfoFor is serverInfo after the first step; resource is nil if the
// server has no metadata.
func (n *network) serverInfoFor(ctx context.Context, resource *oauth.ProtectedResourceMetadata, place string, o *Options) (*DiscoveryState, error) {
	found := &DiscoveryState{
		AuthorizationServerURL: n.chooseServer(resource, o),
		ResourceMetadataURL:    place,
		ProtectedResource:      resource,
		FoundAt:                o.now(),
	}
	if o.ExpectedIssuer != "" && !sameIssuer(o.ExpectedIssuer, found.AuthorizationServerURL) {
		return nil, &AuthorizationServerMismatchError{
			What: "the credential", Recorded: o.ExpectedIssuer, Current: found.AuthorizationServerURL,
		}
	}
	metadata, err := n.authorizationServer(ctx, found.AuthorizationServerURL, o)
	if err != nil && !errors.Is(err, ErrNoMetadata) {
		return nil, err
	}
	found.AuthorizationServer = metadata
	return found, nil
}

// chooseServer is the expected authorization server if the resource names it,
// else the first that it names.
func (n *network) chooseServer(resource *oauth.ProtectedResourceMetadata, o *Options) string {
	if resource == nil || len(resource.AuthorizationServers) == 0 {
		return n.server + "/"
	}
	if i := slices.IndexFunc(resource.AuthorizationServers, func(s string) bool { return sameIssuer(s, o.ExpectedIssuer) }); i >= 0 {
		return resource.AuthorizationServers[i]
	}
	return resource.AuthorizationServers[0]
}

// placeTrouble is what an answer that is no metadata document says about others.
type placeTrouble int

const (
	// notHere: nothing; the server has trouble, or its document is malformed.
	notHere placeTrouble = iota
	// elsewhere: this place is not to be had, such as a 403 or a 502, and another
	// may be. It does not say that there is no document.
	elsewhere
	// aPage is elsewhere, with the page of a web application, login or maintenance.
	aPage
)

func troubleOf(err error) placeTrouble {
	if e, ok := errors.AsType[*EndpointError](err); ok {
		return e.place
	}
	return notHere
}

// document fetches a metadata document. The error is ErrNoMetadata if the server
// says that there is none here, by a 4xx. An EndpointError whose place is not
// notHere leaves it open.
func (n *network) document(ctx context.Context, what, place string, o *Options, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, http.NoBody)
	if err != nil {
		return &RefusedURLError{What: what, URL: oauth.CleanDescription(place), Err: err, Reason: "it cannot be read"}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Mcp-Protocol-Version", o.protocolVersion())
	answer, err := n.do(what, req)
	if err != nil {
		return err
	}
	switch {
	case answer.Status == http.StatusTooManyRequests:
		return unavailable(what, req, answer)
	case answer.Status >= 300 && answer.Status < 400: // commonly to a login
		e := unavailable(what, req, answer)
		e.place = aPage
		return e
	case answer.Status == http.StatusBadGateway, answer.Status == http.StatusForbidden,
		answer.Status == http.StatusRequestTimeout, answer.Status == http.StatusTooEarly:
		// A gateway that has lost its server, or a firewall.
		e := unavailable(what, req, answer)
		e.place = elsewhere
		return e
	case answer.Status >= 400 && answer.Status < 500:
		return ErrNoMetadata
	case answer.Status != http.StatusOK:
		return unavailable(what, req, answer)
	case isWebPage(answer):
		e := webPage(what, req, answer)
		e.place = aPage
		return e
	}
	return readJSON(what, req, answer, v)
}

// ExtractWWWAuthenticateParams returns what a client wants to know of a 401 or
// 403, the SDK's function of that name: [oauth.ExtractChallengeParams].
func ExtractWWWAuthenticateParams(h http.Header) oauth.ChallengeParams {
	return oauth.ExtractChallengeParams(h)
}

// ExtractResourceMetadataURL returns the resource_metadata of a challenge, "" if
// there is none: [oauth.ExtractResourceMetadataURL].
func ExtractResourceMetadataURL(h http.Header) string { return oauth.ExtractResourceMetadataURL(h) }

// endpoint is the URL of an endpoint: that of the metadata, else the default of
// revision 2025-03-26 at the origin of the authorization server.
func (n *network) endpoint(what, fromMetadata, serverURL, path string) (*url.URL, error) {
	raw := fromMetadata
	if raw == "" {
		server, err := parseURL("the authorization server's URL", serverURL)
		if err != nil {
			return nil, err
		}
		raw = originOf(server) + path
	}
	u, err := parseURL(what, raw)
	if err != nil {
		return nil, err
	}
	if _, err := n.check(what, u); err != nil {
		return nil, err
	}
	return u, nil
}

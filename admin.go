package mcpauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI is the part of Caddy's admin API for mcp_auth:
//
// Request | What it does
// --------|--------------
// `GET /mcp_auth/servers` | The running authorization servers and the state of their stores; 503 if one is out of reach
// `GET /mcp_auth/grants?issuer=…&user=…` | The clients that a user has allowed in
// `POST /mcp_auth/grants/revoke` | `{"issuer", "user"[, "grant"]}`: ends one grant of a user, or all
// `POST /mcp_auth/clients/revoke` | `{"issuer", "client_id"}`: ends a client's grants and refuses the client from now on
// `POST /mcp_auth/clients/restore` | `{"issuer", "client_id"}`: lets it in again
// `POST /mcp_auth/keys/rotate` | `{"issuer"[, "drop"]}`: makes a new signing key; with drop, tokens signed with the old ones end at once
//
// A user is the subject that the identity provider gave, or the name of a local
// account; `user_issuer` names the provider's own issuer where it has several,
// as Entra's tenants are. No answer holds a secret.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.mcp_auth", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (*AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/mcp_auth/servers", Handler: adminHandler(http.MethodGet, listServers)},
		{Pattern: "/mcp_auth/grants", Handler: adminHandler(http.MethodGet, listGrants, "issuer", "user", "user_issuer")},
		{Pattern: "/mcp_auth/grants/revoke", Handler: adminHandler(http.MethodPost, revokeGrants, "issuer", "user", "user_issuer", "grant")},
		{Pattern: "/mcp_auth/clients/revoke", Handler: adminHandler(http.MethodPost, revokeClient, "issuer", "client_id")},
		{Pattern: "/mcp_auth/clients/restore", Handler: adminHandler(http.MethodPost, restoreClient, "issuer", "client_id")},
		{Pattern: "/mcp_auth/keys/rotate", Handler: adminHandler(http.MethodPost, rotateKeys, "issuer", "drop")},
	}
}

// adminRequest is what a request may hold, in its body or, with GET, its query.
type adminRequest struct {
	Issuer     string `json:"issuer"`
	User       string `json:"user"`
	UserIssuer string `json:"user_issuer"`
	Grant      string `json:"grant"`
	ClientID   string `json:"client_id"`
	Drop       bool   `json:"drop"`
}

// maxAdminRequest bounds a body, in bytes.
const maxAdminRequest = 64 << 10

// readAdminRequest reads a request that may hold what is named. What is not, and
// what is empty, is refused: a misspelt grant would end all of a user's.
func readAdminRequest(r *http.Request, names []string) (request adminRequest, _ error) {
	members := make(map[string]json.RawMessage)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return request, errors.New("the query cannot be read")
	}
	for name, values := range query {
		if r.Method != http.MethodGet || len(values) != 1 {
			return request, fmt.Errorf("%q is in the query: with GET each parameter is there once, else there is a body of JSON", name)
		}
		value, err := json.Marshal(values[0])
		if err != nil {
			return request, err
		}
		members[name] = value
	}
	if r.Method != http.MethodGet {
		if err := strictjson.Read(r.Body, maxAdminRequest, &members); err != nil {
			return request, err
		}
	}
	for name, value := range members {
		switch {
		case !slices.Contains(names, name):
			return request, fmt.Errorf("%q means nothing here; there are: %s", name, strings.Join(names, ", "))
		case string(value) == `""`, string(value) == "null":
			return request, fmt.Errorf("%q is empty; leave it out if that is meant", name)
		}
	}
	body, err := json.Marshal(members)
	if err != nil {
		return request, err
	}
	return request, json.Unmarshal(body, &request)
}

// adminTime bounds an administrative request.
const adminTime = 30 * time.Second

// adminHandler handles requests that may hold what is named.
func adminHandler(method string, handle func(context.Context, *App, adminRequest) (any, error), names ...string) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method {
			w.Header().Set("Allow", method)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("use %s", method)}
		}
		request, err := readAdminRequest(r, names)
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
		}
		module, err := caddy.ActiveContext().AppIfConfigured("mcp_auth")
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("this configuration has no mcp_auth")}
		}
		ctx, cancel := context.WithTimeout(r.Context(), adminTime)
		defer cancel()
		answer, err := handle(ctx, module.(*App), request)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		if state, ok := answer.(serverList); ok && state.trouble() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return json.NewEncoder(w).Encode(answer)
	})
}

type serverList []serverState

type serverState struct {
	Issuer string `json:"issuer"`
	// Tokens says who issues the tokens: self or elsewhere.
	Tokens string `json:"tokens"`
	// Store is ok, out of reach, or empty if there is none.
	Store string `json:"store,omitempty"`
}

func (l serverList) trouble() bool {
	return slices.ContainsFunc(l, func(s serverState) bool { return s.Store != "" && s.Store != "ok" })
}

func listServers(ctx context.Context, a *App, _ adminRequest) (any, error) {
	a.sitesMu.Lock()
	sites := maps.Clone(a.sites)
	a.sitesMu.Unlock()
	list := make(serverList, 0, len(sites))
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		state := serverState{Issuer: sites[name].issuer, Tokens: "elsewhere"}
		if c := sites[name].control; c != nil {
			state.Tokens, state.Store = "self", "ok"
			if err := c.check(ctx); err != nil {
				a.logger.Error("the store is out of reach: " + err.Error())
				state.Store = "out of reach"
			}
		}
		list = append(list, state)
	}
	return list, nil
}

// controlOf finds what the request is about.
func controlOf(a *App, request adminRequest) (*control, error) {
	s := a.siteOf(request.Issuer)
	if s == nil || s.control == nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("no mcp_auth of this configuration issues tokens as %q", request.Issuer)}
	}
	return s.control, nil
}

// subject returns the name of the request's user in the store.
func (c *control) subject(request adminRequest) (string, error) {
	if request.User == "" {
		return "", caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New("user is missing")}
	}
	issuer := request.UserIssuer
	if issuer == "" {
		issuer = c.userIssuer
	}
	return proxyprovider.SubjectKey(issuer, request.User), nil
}

func listGrants(ctx context.Context, a *App, request adminRequest) (any, error) {
	c, err := controlOf(a, request)
	if err != nil {
		return nil, err
	}
	subject, err := c.subject(request)
	if err != nil {
		return nil, err
	}
	grants, err := c.grants.ListBySubject(ctx, subject)
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for _, g := range grants {
		list = append(list, map[string]any{
			"grant": g.ID, "client_id": g.ClientID, "client_name": g.ClientName, "scopes": g.Scopes,
			"resource": g.Resource, "created_at": g.CreatedAt, "last_used": g.LastUsed,
		})
	}
	return list, nil
}

func revokeGrants(ctx context.Context, a *App, request adminRequest) (any, error) {
	c, err := controlOf(a, request)
	if err != nil {
		return nil, err
	}
	subject, err := c.subject(request)
	if err != nil {
		return nil, err
	}
	if request.Grant == "" {
		return struct{}{}, c.grants.RevokeAll(ctx, subject)
	}
	err = c.grants.RevokeGrant(ctx, subject, request.Grant)
	if errors.Is(err, proxyprovider.ErrGrantNotFound) {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
	}
	return struct{}{}, err
}

func revokeClient(ctx context.Context, a *App, request adminRequest) (any, error) {
	c, err := controlOf(a, request)
	if err != nil {
		return nil, err
	}
	if request.ClientID == "" {
		return nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New("client_id is missing")}
	}
	return struct{}{}, c.revokeClient(ctx, request.ClientID)
}

func restoreClient(ctx context.Context, a *App, request adminRequest) (any, error) {
	c, err := controlOf(a, request)
	if err != nil {
		return nil, err
	}
	restored, err := c.restoreClient(ctx, request.ClientID)
	if err == nil && !restored {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no such client is refused")}
	}
	return struct{}{}, err
}

func rotateKeys(ctx context.Context, a *App, request adminRequest) (any, error) {
	c, err := controlOf(a, request)
	if err != nil {
		return nil, err
	}
	return struct{}{}, c.grants.RotateNow(ctx, request.Drop)
}

// Interface guards
var _ caddy.AdminRouter = (*AdminAPI)(nil)

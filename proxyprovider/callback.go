package proxyprovider

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// discardTime is how long an upstream may take to revoke tokens that nobody
// needs.
const discardTime = 3 * time.Second

// loginEnd is what comes of a login.
type loginEnd struct {
	who *idp.Identity
	// location is where the browser goes with the code.
	location string
	// ask shows the consent page to who, for this client.
	ask    bool
	client *oauth.Client
}

// refusedLoginError is the end of a login that the client is told of.
type refusedLoginError struct {
	err *oauth.Error
	// account tells that another account might have been allowed.
	account bool
}

func (e *refusedLoginError) Error() string { return e.err.Error() }
func (e *refusedLoginError) Unwrap() error { return e.err }

// serveCallback is our redirect URI at the upstream.
func (b *Broker) serveCallback(w http.ResponseWriter, r *http.Request) error {
	seals, err := b.seals.get()
	if err != nil {
		return err
	}
	query, err := callbackQuery(r)
	if err != nil {
		return err
	}
	tx, err := b.takeTransaction(w, r, seals, query)
	if err != nil {
		return err
	}
	// A browser loads a callback twice when its user is impatient. The code is
	// good once, so both loads get what comes of one exchange, and it goes on when
	// the first of them is given up.
	ended, err, _ := b.flights.Do(tx.state()+r.URL.RawQuery, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), requestTime)
		defer cancel()
		return b.finishUpstream(r.WithContext(ctx), seals, tx, query)
	})
	end, _ := ended.(*loginEnd)
	return b.endLogin(w, r, seals, tx, end, err)
}

// callbackQuery reads the parameters, bounded.
func callbackQuery(r *http.Request) (url.Values, error) {
	if len(r.URL.RawQuery) > maxBrowserQuery {
		return nil, problem("lost", http.StatusBadRequest, errors.New("the query of the callback is too long"))
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem("lost", http.StatusBadRequest, errors.New("the query of the callback is malformed"))
	}
	return query, nil
}

// takeTransaction returns the login that this browser began with that state, and
// removes its cookies. State alone proves nothing: an attacker can have a state
// and a code of his own (login CSRF).
func (b *browserFlow) takeTransaction(w http.ResponseWriter, r *http.Request, seals *brokerSeals, query url.Values) (*transaction, error) {
	if id, ok := stateOf(query); ok {
		b.clearTransaction(w, r, transactionName(id))
	}
	return b.findTransaction(r, seals, query)
}

// stateOf is the id of a transaction in a query.
func stateOf(query url.Values) (id [32]byte, ok bool) {
	states := query["state"]
	ok = len(states) == 1 && decodeExactly(id[:], states[0])
	return id, ok
}

// findTransaction is takeTransaction, and leaves the cookies.
func (b *browserFlow) findTransaction(r *http.Request, seals *brokerSeals, query url.Values) (*transaction, error) {
	id, ok := stateOf(query)
	if !ok {
		return nil, problem("lost", http.StatusBadRequest, errors.New("the query has no state of ours"))
	}
	tx, err := b.openTransaction(r, seals, transactionName(id))
	switch {
	case errors.Is(err, seal.ErrExpired):
		return nil, problem("expired", http.StatusBadRequest, err)
	case err != nil:
		return nil, problem("lost", http.StatusBadRequest, fmt.Errorf("the cookie of the transaction: %w", err))
	case subtle.ConstantTimeCompare(tx.id[:], id[:]) != 1:
		return nil, problem("lost", http.StatusBadRequest, errors.New("the state is not that of the transaction"))
	}
	return tx, nil
}

// finishUpstream exchanges the code and decides what comes of the login.
func (b *Broker) finishUpstream(r *http.Request, seals *brokerSeals, tx *transaction, query url.Values) (*loginEnd, error) {
	ctx := r.Context()
	var client *oauth.Client
	if tx.purpose == forClient {
		var err error
		if client, err = b.currentClient(ctx, &tx.request); err != nil {
			return nil, err
		}
		// Before the code is sent a second time: the upstream may take that for
		// theft and revoke what it gave for the first.
		if err := b.checkUnused(ctx, tx); err != nil {
			return nil, err
		}
	}
	who, tokens, err := b.cfg.Upstream.Exchange(ctx, idp.Callback{
		Query: query, RedirectURI: b.callbackURL(), Nonce: tx.nonce, CodeVerifier: tx.verifier,
	})
	if err != nil {
		return nil, upstreamRefusal(err)
	}
	if tx.purpose == forConnections {
		defer b.discard(ctx, tokens)
	}
	end, err := b.decide(ctx, r, seals, client, tx, who, tokens)
	if tx.purpose == forClient && (err != nil || end.ask) {
		b.discard(ctx, tokens)
	}
	return end, err
}

// decide applies the rules to who has signed in, and makes the grant.
func (b *Broker) decide(ctx context.Context, r *http.Request, seals *brokerSeals, client *oauth.Client, tx *transaction, who *idp.Identity, tokens *idp.Tokens) (*loginEnd, error) {
	if ok, reason := b.cfg.Allow.Allows(who); !ok {
		b.cfg.Logger.Warn("somebody signed in who is not allowed", "user", accountLabel(who), "reason", reason)
		return nil, &refusedLoginError{account: true, err: oauth.ErrAccessDenied.Describe("The account may not use this server").Because(errors.New(reason))}
	}
	if tx.purpose == forConnections {
		return &loginEnd{who: who}, nil
	}
	if !b.approvedBy(seals, r, tx, who) {
		return &loginEnd{who: who, ask: true, client: client}, nil
	}
	location, err := b.createGrant(ctx, client, tx, who, tokens)
	switch {
	case errors.Is(err, ErrGrantExists):
		return nil, problem("used", http.StatusBadRequest, err)
	case err != nil:
		return nil, &refusedLoginError{err: oauth.AsError(err)}
	}
	return &loginEnd{who: who, location: location}, nil
}

// checkUnused refuses a transaction that has made a grant.
func (b *Broker) checkUnused(ctx context.Context, tx *transaction) error {
	id, err := b.grantID(tx)
	if err != nil {
		return err
	}
	switch grant, err := b.load(ctx, id); {
	case err != nil:
		return &refusedLoginError{err: oauth.AsError(err)}
	case grant != nil:
		return problem("used", http.StatusBadRequest, ErrGrantExists)
	}
	return nil
}

// upstreamRefusal sorts the errors of an upstream. What it said is for the log.
func upstreamRefusal(err error) error {
	var refused *idp.Error
	switch {
	case errors.Is(err, idp.ErrDenied):
		code := oauth.ErrAccessDenied.Code
		if errors.As(err, &refused) && isSignInCode(refused.Code) {
			code = refused.Code
		}
		return &refusedLoginError{err: oauth.NewError(code, "The sign-in was refused by the user or the identity provider").Because(err)}
	case errors.Is(err, idp.ErrDead):
		// Used before, or too old. The client may have what it waits for already.
		return problem("used", http.StatusBadRequest, err)
	case errors.Is(err, idp.ErrTrouble), errors.Is(err, context.DeadlineExceeded):
		return &refusedLoginError{err: temporarily("The identity provider has trouble, try again", err)}
	}
	return &refusedLoginError{err: oauth.ErrServerError.Describe("The sign-in failed").Because(err)}
}

// isSignInCode reports whether a client understands the code as an answer to its
// authorization request (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
func isSignInCode(code string) bool {
	switch code {
	case "access_denied", "login_required", "interaction_required", "consent_required", "account_selection_required":
		return true
	}
	return false
}

// endLogin answers the browser.
func (b *Broker) endLogin(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction, end *loginEnd, err error) error {
	var refused *refusedLoginError
	if errors.As(err, &refused) && refused.account && b.cfg.Upstream != nil {
		b.jar.set(w, b.jar.again, "1", loginTime, http.SameSiteLaxMode)
	}
	switch {
	case refused != nil && tx.purpose == forConnections:
		return connectionsProblem(refused.err)
	case refused != nil:
		return b.tellClient(w, r, &tx.request, refused.err)
	case err != nil:
		return err
	case tx.purpose == forConnections:
		return b.beginSession(w, r, seals, end.who)
	case end.ask:
		return b.askConsent(w, r, seals, end.client, tx, end.who)
	}
	if tx.approval == clicked {
		b.remember(w, r, seals, &tx.request, userHashOf(end.who))
	}
	return seeOther(w, end.location)
}

// connectionsProblem is what a refused login is for the page of connected apps,
// where no client waits for an answer.
func connectionsProblem(e *oauth.Error) error {
	n := problem("denied", http.StatusForbidden, e)
	if e.HTTPStatus() >= http.StatusInternalServerError {
		n = problem("trouble", e.HTTPStatus(), e)
	}
	n.connections = true
	return n
}

// discard revokes tokens that no grant will hold, as well as it goes.
func (b *Broker) discard(ctx context.Context, tokens *idp.Tokens) {
	if tokens == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discardTime)
	defer cancel()
	if err := b.cfg.Upstream.Revoke(ctx, *tokens); err != nil {
		b.cfg.Logger.Info("tokens that are not needed could not be revoked upstream", "error", err)
	}
}

// language is that of the pages of a login.
func (tx *transaction) language(r *http.Request) *pages.Language {
	return pages.Speak(r, tx.request.locales)
}

package proxyprovider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// askPassword shows the form for local accounts. It is asked at every login:
// there is no session that others could make use of.
func (b *Broker) askPassword(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction, username, trouble string, status int) error {
	client := ""
	if tx.purpose == forClient {
		c, err := b.currentClient(r.Context(), &tx.request)
		if err != nil {
			return err
		}
		if client = b.shownClient(c).Name; client == "" {
			client = tx.language(r).Text("client.unnamed")
		}
	}
	form, err := b.sealForm(w, r, seals, loginForm, "", tx)
	if err != nil {
		return err
	}
	b.site.WriteLogin(w, r, status, tx.language(r), pages.Login{
		Action: b.path(loginPath), Request: form, Client: client, Username: username, Problem: trouble,
	})
	return nil
}

// goToPassword takes the user to the form. After a click it has an address of its
// own: whoever comes back from the app with the browser's back button would
// otherwise be asked whether to send the click once more.
func (b *Broker) goToPassword(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction) error {
	if r.Method != http.MethodPost {
		return b.askPassword(w, r, seals, tx, "", "", http.StatusOK)
	}
	if err := b.setTransaction(w, r, seals, tx); err != nil {
		return err
	}
	return seeOther(w, b.path(loginPath)+"?"+url.Values{"state": {tx.state()}}.Encode())
}

// serveLogin shows the form, or checks a name and a password.
func (b *Broker) serveLogin(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return b.showLogin(w, r)
	}
	return b.checkLogin(w, r)
}

// showLogin shows the form of a login that began in this browser. It may be
// loaded again until the login is over.
func (b *Broker) showLogin(w http.ResponseWriter, r *http.Request) error {
	seals, err := b.seals.get()
	if err != nil {
		return err
	}
	query, err := callbackQuery(r)
	if err != nil {
		return err
	}
	tx, err := b.findTransaction(r, seals, query)
	if err != nil {
		return err
	}
	return b.askPassword(w, r, seals, tx, "", "", http.StatusOK)
}

// checkLogin checks a name and a password.
func (b *Broker) checkLogin(w http.ResponseWriter, r *http.Request) error {
	values, err := b.readBrowserForm(w, r)
	if err != nil {
		return err
	}
	seals, err := b.seals.get()
	if err != nil {
		return err
	}
	form, err := b.openForm(r, seals, loginForm, values.Get("request"))
	if err != nil {
		return err
	}
	tx, username := form.tx, values.Get("username")
	who, err := b.cfg.Accounts.Verify(r.Context(), username, values.Get("password"), b.cfg.ClientIP(r))
	if err != nil {
		return b.askPasswordAgain(w, r, seals, tx, pages.Clean(username, maxShownHost), err)
	}
	return b.finishAccount(w, r, seals, tx, who)
}

// askPasswordAgain shows the form with what went wrong.
func (b *Broker) askPasswordAgain(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction, username string, err error) error {
	l := tx.language(r)
	var throttled *idp.ThrottledError
	var text string
	status := http.StatusForbidden
	switch {
	case errors.Is(err, idp.ErrWrongPassword):
		text = l.Text("login.wrong")
	case errors.As(err, &throttled):
		wait := max(throttled.RetryAfter, time.Second)
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		status, text = http.StatusTooManyRequests, l.Text("login.throttled", "minutes", strconv.Itoa(int((wait+time.Minute-1)/time.Minute)))
	case errors.Is(err, idp.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "5")
		status, text = http.StatusServiceUnavailable, l.Text("login.busy")
	default:
		return err
	}
	b.cfg.Logger.Info("a sign-in was refused", "reason", err.Error(), "remote_ip", b.cfg.ClientIP(r))
	return b.askPassword(w, r, seals, tx, username, text, status)
}

// finishAccount ends the login of a local account.
func (b *Broker) finishAccount(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction, who *idp.Identity) error {
	// As at the callback: two clicks get what comes of one.
	ended, err, _ := b.flights.Do(tx.state()+" "+who.Subject, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), requestTime)
		defer cancel()
		var client *oauth.Client
		if tx.purpose == forClient {
			var err error
			if client, err = b.currentClient(ctx, &tx.request); err != nil {
				return nil, err
			}
		}
		return b.decide(ctx, r, seals, client, tx, who, nil)
	})
	end, _ := ended.(*loginEnd)
	b.clearTransaction(w, r, tx.name())
	return b.endLogin(w, r, seals, tx, end, err)
}

// allowAsAccount ends a login whose user was asked after the sign-in.
func (b *Broker) allowAsAccount(w http.ResponseWriter, r *http.Request, seals *brokerSeals, form *browserForm) error {
	if b.cfg.Accounts == nil {
		return problem("tampered", http.StatusBadRequest, errors.New("a form of local accounts, which there are none"))
	}
	who, ok := b.cfg.Accounts.Lookup(form.account)
	if !ok {
		return b.tellClient(w, r, &form.tx.request, oauth.ErrAccessDenied.Describe("The account may not use this server"))
	}
	return b.finishAccount(w, r, seals, form.tx, who)
}

package proxyprovider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	maxLoginHint = 320 // bytes of login_hint
	maxLocales   = 128 // bytes of ui_locales
	// maxTransaction is what fits into two cookies once it is sealed and encoded,
	// in bytes; a part of it is for what the request does not hold yet.
	maxTransaction = 4900
)

// authRequest is a client's authorization request after all checks, with the
// scopes that will be granted.
type authRequest struct {
	clientID        string
	metadataHash    digest
	redirectURI     string
	redirectOmitted bool
	state           string
	challenge       string
	scopes          []string
	resource        string
	// prompt, loginHint and locales are for the sign-in.
	prompt, loginHint, locales string
	// nonce, maxAge and acrValues are what a relay passes on besides.
	nonce, maxAge, acrValues string
}

// checkSize refuses a request that does not fit into cookies.
func (q *authRequest) checkSize() error {
	if size := len((&transaction{request: *q}).encode()); size > maxTransaction {
		return oauth.ErrInvalidRequest.Describe(fmt.Sprintf(
			"The request is too large by %d bytes: shorten state, scope or redirect_uri", size-maxTransaction))
	}
	return nil
}

// purpose is what a login is for. One for the page of connected apps must never
// end in a grant.
type purpose byte

const (
	forClient purpose = 1 + iota
	forConnections
)

// approval is how the user came to allow the client.
type approval byte

const (
	notYet     approval = iota
	clicked             // on the consent page, in this login
	remembered          // earlier in this browser; whose word that was shows after the login
	skipped             // the operator did
)

// userHash names a user where a cookie must stay short.
type userHash [8]byte

// transaction is one login, from the approval to the grant. It travels sealed in
// the browser: in the forms, and in a cookie while the user is upstream.
type transaction struct {
	purpose  purpose
	approval approval
	// asUser is who allowed the client, if that was after a login; another one is
	// asked again.
	asUser userHash
	// id makes the state, which goes upstream, and the id of the grant. It is set
	// by start, like nonce and verifier.
	id              [32]byte
	nonce, verifier string
	started         stamp
	// asksAlways tells that the client wants its user to be asked, whatever was
	// allowed before (prompt=consent).
	asksAlways bool
	// challenged tells that a relay passed the client's PKCE challenge on.
	challenged bool
	request    authRequest
}

// start gives the transaction its secrets.
func (tx *transaction) start(rand io.Reader, now time.Time) error {
	var nonce, verifier [32]byte
	for _, b := range [][]byte{tx.id[:], nonce[:], verifier[:]} {
		if _, err := io.ReadFull(rand, b); err != nil {
			return err
		}
	}
	tx.nonce = base64.RawURLEncoding.EncodeToString(nonce[:])
	tx.verifier = base64.RawURLEncoding.EncodeToString(verifier[:])
	tx.started = stampOf(now)
	return nil
}

// state is what the upstream gets and gives back.
func (tx *transaction) state() string { return base64.RawURLEncoding.EncodeToString(tx.id[:]) }

// name is the part of the cookie's name that belongs to the transaction.
func (tx *transaction) name() string { return transactionName(tx.id) }

func transactionName(id [32]byte) string {
	sum := sha256.Sum256(id[:])
	return hex.EncodeToString(sum[:4])
}

const (
	transactionFormat = 1

	bitOmitted    = 1
	bitAsksAlways = 2
	bitChallenged = 4
)

var errTransaction = errors.New("the transaction cannot be read")

// encode returns the binary form: format, purpose and approval, one byte each,
// then the fields.
func (tx *transaction) encode() []byte {
	w := recordWriter{b: []byte{transactionFormat, byte(tx.purpose), byte(tx.approval)}}
	w.b = append(w.b, tx.asUser[:]...)
	w.b = append(w.b, tx.id[:]...)
	w.number(uint64(tx.started)) //nolint:gosec // after 1970
	q := &tx.request
	bits := byte(0)
	if q.redirectOmitted {
		bits |= bitOmitted
	}
	if tx.asksAlways {
		bits |= bitAsksAlways
	}
	if tx.challenged {
		bits |= bitChallenged
	}
	w.b = append(w.b, bits)
	w.b = append(w.b, q.metadataHash[:]...)
	for _, s := range []string{
		tx.nonce, tx.verifier, q.clientID, q.redirectURI, q.state, q.challenge,
		oauth.JoinScope(q.scopes), q.resource, q.prompt, q.loginHint, q.locales, q.nonce, q.maxAge, q.acrValues,
	} {
		w.text(s)
	}
	return w.b
}

// decodeTransaction is the inverse of encode.
func decodeTransaction(b []byte) (*transaction, error) {
	d := recordReader{b: b}
	if d.byte() != transactionFormat {
		return nil, errTransaction
	}
	tx := &transaction{purpose: purpose(d.byte()), approval: approval(d.byte())}
	d.fill(tx.asUser[:])
	d.fill(tx.id[:])
	tx.started = stamp(d.number(1 << 50)) //nolint:gosec // bounded
	bits := d.byte()
	tx.asksAlways = bits&bitAsksAlways != 0
	tx.challenged = bits&bitChallenged != 0
	q := &tx.request
	q.redirectOmitted = bits&bitOmitted != 0
	d.fill(q.metadataHash[:])
	var scopes string
	for _, s := range []*string{
		&tx.nonce, &tx.verifier, &q.clientID, &q.redirectURI, &q.state, &q.challenge,
		&scopes, &q.resource, &q.prompt, &q.loginHint, &q.locales, &q.nonce, &q.maxAge, &q.acrValues,
	} {
		*s = d.text()
	}
	q.scopes = strings.Fields(scopes)
	if len(q.scopes) == 0 {
		q.scopes = nil
	}
	if d.bad || len(d.b) > 0 || bits > bitOmitted|bitAsksAlways|bitChallenged || tx.approval > skipped ||
		tx.purpose != forClient && tx.purpose != forConnections || oauth.JoinScope(q.scopes) != scopes {
		return nil, errTransaction
	}
	return tx, nil
}

// browserForm is what a form carries, sealed: the login, bound to the browser in
// which it was shown.
type browserForm struct {
	browser browserID
	// account is who has signed in already, for a consent page after that.
	account string
	tx      *transaction
}

// The forms. What was sealed for one does not open as another.
const (
	consentForm     = "consent"
	loginForm       = "login"
	connectionsForm = "connections"
)

func (f *browserForm) encode() []byte {
	w := recordWriter{}
	w.b = append(w.b, f.browser[:]...)
	w.text(f.account)
	w.b = append(w.b, f.tx.encode()...)
	return w.b
}

func decodeBrowserForm(b []byte) (*browserForm, error) {
	d := recordReader{b: b}
	f := &browserForm{}
	d.fill(f.browser[:])
	f.account = d.text()
	if d.bad {
		return nil, errTransaction
	}
	tx, err := decodeTransaction(d.b)
	if err != nil {
		return nil, err
	}
	f.tx = tx
	return f, nil
}

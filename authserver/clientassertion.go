package authserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// AssertionAlgorithms implements AssertionVerifier.
func (s *Clients) AssertionAlgorithms() []string {
	if s.config.Documents == nil && len(s.keys) == 0 {
		return nil
	}
	return assertionAlgorithms()
}

// VerifyAssertion implements AssertionVerifier (RFC 7523 §3). What costs
// nothing is checked before a document or key is fetched, and the assertion is
// used up only when everything else about it is right.
func (s *Clients) VerifyAssertion(ctx context.Context, clientID, compact string, audiences []string) (*oauth.Client, error) {
	a, err := parseAssertion(compact)
	if err != nil {
		return nil, errAssertion(err.Error())
	}
	now := s.config.Now()
	if err := a.check(clientID, audiences, now); err != nil {
		return nil, errAssertion(err.Error())
	}
	client, err := s.verifySignature(ctx, a)
	if err != nil {
		return nil, err
	}
	return client, s.useUp(ctx, a, now)
}

// verifySignature returns the client whose signature it is.
func (s *Clients) verifySignature(ctx context.Context, a *assertion) (*oauth.Client, error) {
	wrong := errAssertion("its signature is not by a key of the client")
	if keys := s.keys[a.subject]; keys != nil {
		if valid, _ := a.verify(keys); !valid {
			return nil, wrong
		}
		return s.preregistered[a.subject], nil
	}
	if !isDocumentID(a.subject) || s.preregistered[a.subject] != nil {
		return nil, errAssertion("the client is not registered for private_key_jwt")
	}
	doc, err := s.document(ctx, a.subject)
	if err != nil {
		return nil, err
	}
	switch {
	case doc.keys == nil && doc.Client.JWKSURI == "":
		return nil, errAssertion("the metadata document of the client has no usable keys")
	case doc.signingAlg != "" && doc.signingAlg != a.alg:
		return nil, errAssertion("its alg is not the token_endpoint_auth_signing_alg of the client")
	}
	keys, err := s.config.Documents.keysOf(ctx, doc)
	if err != nil {
		return nil, err
	}
	valid, known := a.verify(keys)
	if !valid && (!known || a.keyID == "") {
		// The client may have new keys.
		newer, err := s.config.Documents.newerKeysOf(ctx, doc)
		if err != nil {
			return nil, err
		}
		if newer != keys {
			valid, _ = a.verify(newer)
		}
	}
	if !valid {
		return nil, wrong
	}
	return doc.Client, nil
}

// useUp makes sure that the assertion is accepted once.
func (s *Clients) useUp(ctx context.Context, a *assertion, now time.Time) error {
	until := a.expires.Add(assertionSkew)
	replayed := errAssertion("its jti was used before")
	if s.config.SeenAssertion != nil {
		h := newClientHash("assertion")
		h.list([]string{s.config.Issuer, a.subject, a.id})
		seen, err := s.config.SeenAssertion(ctx, h.sum(), until)
		if err == nil && seen {
			err = replayed
		}
		return err
	}
	fresh, full := s.used.add(a.subject, a.id, until, now)
	switch {
	case full:
		return oauth.ErrTooManyRequests.Describe("The client has sent too many assertions in a short time")
	case !fresh:
		return replayed
	}
	return nil
}

// authenticateAssertion authenticates by client_assertion (RFC 7521 §4.2).
func (s *Server) authenticateAssertion(r *http.Request, form params) (*oauth.Client, error) {
	if usesBasic(r) || form.get("client_secret") != "" {
		return nil, oauth.ErrInvalidRequest.Describe("The client uses two methods of authentication: send the assertion alone")
	}
	kind, err := form.required("client_assertion_type")
	if err != nil {
		return nil, err
	}
	compact, err := form.required("client_assertion")
	if err != nil {
		return nil, err
	}
	verifier, _ := s.config.Provider.Clients().(AssertionVerifier)
	if kind != assertionType || verifier == nil || len(verifier.AssertionAlgorithms()) == 0 {
		return nil, oauth.ErrInvalidClient.Describe("This server does not support this client_assertion_type")
	}
	client, err := verifier.VerifyAssertion(r.Context(), form.get("client_id"), compact, []string{s.config.Issuer, s.metadata.TokenEndpoint})
	if err == nil && client == nil {
		err = errors.New("the client store returned no client for the assertion")
	}
	return client, err
}

// assertedClient is the client id that the assertion claims, true or not; ""
// if it cannot be read.
func assertedClient(form params) string {
	compact := form.get("client_assertion")
	if compact == "" {
		return ""
	}
	a, err := parseAssertion(compact)
	if err != nil {
		return ""
	}
	return a.subject
}

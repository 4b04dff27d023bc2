package authclient

import (
	"context"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Prover is a Provider whose tokens are bound to a key, of which every request
// carries a proof (DPoP, RFC 9449).
type Prover interface {
	// ProveTokenRequest adds a proof to a request to the token endpoint.
	// metadata is nil if the authorization server publishes none.
	ProveTokenRequest(ctx context.Context, r *http.Request, metadata *oauth.Metadata) error
	// ProveResourceRequest adds the token and a proof to a request to the MCP
	// server. It may leave both out, for a token that is not bound: then the
	// token goes as Bearer.
	ProveResourceRequest(ctx context.Context, r *http.Request, tokens *Tokens) error
	// ProofAnswered is told of the answer to each request with a proof, to
	// learn the nonce. It returns true if the request is to be sent once more
	// with a new proof, which happens at most once.
	ProofAnswered(ctx context.Context, a ProofAnswer) (again bool)
	// AcceptTokens is asked about the tokens that a request with a proof has
	// brought, before they are kept, and about stored ones before they are used.
	// An error refuses them, for example because they are not bound.
	AcceptTokens(ctx context.Context, tokens *Tokens) error
}

// CodeBinder is a Prover that has the authorization code bound to its key too.
type CodeBinder interface {
	// CodeKey is the thumbprint that goes into the authorization request as
	// dpop_jkt (RFC 9449 §10); "" for none. metadata is nil if the authorization
	// server publishes none.
	CodeKey(metadata *oauth.Metadata) string
}

// ProofAnswer is an answer to a request with a proof.
type ProofAnswer struct {
	// URL is where the request went.
	URL    *url.URL
	Status int
	Header http.Header
	// Code is the OAuth error code, such as use_dpop_nonce, of the answer's body
	// at the token endpoint, of its challenge at the MCP server; "" if none.
	Code string
}

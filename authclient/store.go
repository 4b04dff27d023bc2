package authclient

import "context"

// Store is the part of a Provider that keeps credentials: the ready providers
// are made of a store and of a way to reach the user. MemoryStore and FileStore
// are stores, each of one MCP server and one user.
type Store interface {
	Registrar
	CredentialInvalidator
	DiscoveryStore
	Locker

	ClientInformation(ctx context.Context, issuer string) (*ClientInformation, error)
	Tokens(ctx context.Context, issuer string) (*Tokens, error)
	SaveTokens(ctx context.Context, tokens *Tokens) error
	CodeVerifier(ctx context.Context) (string, error)
	SaveCodeVerifier(ctx context.Context, verifier string) error
}

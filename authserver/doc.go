// Package authserver is the authorization server of OAuth 2.1 as MCP uses it:
// the endpoints /authorize, /token, /register and /revoke and the metadata of
// RFC 8414, as an http.Handler around a Provider. It is the Go form of the
// TypeScript SDK's mcpAuthRouter.
//
//	server, err := authserver.New(authserver.Config{
//		Issuer:   "https://mcp.example.com",
//		Provider: provider,
//	})
//	…
//	http.Handle("/", server)
//
// The Server speaks the protocol: it parses strictly, authenticates clients,
// holds redirect URIs and PKCE to what the standards say, limits rates, and
// answers every error in the form that a client understands. The Provider
// decides who may sign in and what a token is.
//
// Clients is a ClientStore that stores nothing: the operator's clients, client
// ID metadata documents, and dynamic registrations sealed into the client_id.
//
// The Server keeps nothing but rate-limit counters, in bounded memory, and
// starts no goroutine; Clients keeps a bounded cache of documents and keys and
// the ids of used assertions.
package authserver

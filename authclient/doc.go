// Package authclient is the client side of MCP authorization: it connects a Go
// program to any MCP server that OAuth protects. It does what auth(),
// withOAuth() and OAuthClientProvider of the MCP TypeScript SDK (version 2) do.
//
//   - [Auth] takes the steps to a token: discovery of the authorization server,
//     registration, authorization with PKCE, redemption, refresh. It is
//     resumable: it ends with AUTHORIZED, or with REDIRECT, after which it is
//     called once more with the parameters of the callback.
//   - [WithOAuth] wraps an [net/http.RoundTripper]: it adds the token, and
//     answers 401 and 403 insufficient_scope by calling Auth.
//   - A [Provider] says who the client is and keeps what it holds. Ready ones
//     are [Web] and [Loopback] over a [Store], [MemoryStore] or [FileStore].
//
// Credentials bear the issuer that they are for and are presented to no other.
// URLs that a server names are https, or loopback if the server itself is, and
// are not followed to private addresses unless the caller allows it.
package authclient

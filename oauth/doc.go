// Package oauth is the vocabulary of OAuth 2.1 as MCP uses it: client
// metadata, tokens, authorization-server and protected-resource metadata,
// errors, scopes, identifiers of issuers and resources, well-known URLs,
// bearer challenges and the rules for redirect URIs.
//
// The package does no I/O and holds no state. Parsing is strict about what the
// standards decide and keeps members that it does not know, so that a document
// survives a round trip.
package oauth

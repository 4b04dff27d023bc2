// Package bearer is the resource-server side of OAuth for MCP: it decides
// which requests need an access token, checks the token, and answers what is
// refused.
//
//   - Guard is the check in front of one or more protected resources: paths,
//     browser origins, token, audience, expiry and scopes, in this order. It is
//     also the only writer of 401 and 403 answers, and serves the
//     protected-resource metadata (RFC 9728) of its resources.
//   - Policy says which MCP calls a caller may make: scopes for tools, prompts,
//     resources and methods, and conditions.
//   - Verifier says whether a token is genuine; this package has verifiers for
//     JWTs and for token introspection.
//   - Middleware puts a Guard in front of an http.Handler. RequireBearerAuth
//     is the smaller form that the MCP TypeScript SDK has.
//   - StripIdentity and SetIdentity handle the X-MCP-* headers that tell the
//     server behind who is asking.
package bearer

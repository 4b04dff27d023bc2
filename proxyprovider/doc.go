// Package proxyprovider holds the providers that delegate the login to an
// upstream identity provider.
//
// Proxy relays: the upstream issues the tokens, every MCP client is its own
// client upstream, and nothing is stored here. It does on the wire what the
// SDK's ProxyOAuthServerProvider does, without the defects that
// docs/sdk-compatibility.md names.
package proxyprovider

package seal

// Purpose says what a value is sealed for. Each has a subkey of its own, so
// that a value made for one is not valid for another. A Purpose never changes
// its text: that would invalidate everything sealed under it.
type Purpose string

// The purposes of this module.
const (
	// PurposeClientID is for the client_id of a sealed registration.
	PurposeClientID Purpose = "client id"
	// PurposeClientSecret is for secrets that are derived from a client_id.
	PurposeClientSecret Purpose = "client secret"
	// PurposeConsentForm is for the request that the consent form carries.
	PurposeConsentForm Purpose = "consent form"
	// PurposeTransaction is for the cookie of a login in progress.
	PurposeTransaction Purpose = "transaction"
	// PurposeConsentMemory is for remembered consent.
	PurposeConsentMemory Purpose = "consent memory"
	// PurposeStoreValue is for values in a store; the store key is the
	// associated data.
	PurposeStoreValue Purpose = "store value"
	// PurposeRefreshMAC is for the MAC in the broker's refresh tokens.
	PurposeRefreshMAC Purpose = "refresh mac"
	// PurposeProxyID is for the client_id of a client registered upstream.
	PurposeProxyID Purpose = "proxy id"
	// PurposeProxyRefresh is for relayed refresh tokens.
	PurposeProxyRefresh Purpose = "proxy refresh"
	// PurposeRelayCode is for authorization codes of an upstream on their way to
	// the client.
	PurposeRelayCode Purpose = "relay code"
	// PurposeSession is for browser sessions.
	PurposeSession Purpose = "session"
	// PurposeMCPSession is for the MAC that binds an MCP session to its user.
	PurposeMCPSession Purpose = "mcp session"
	// PurposeAssertion is for the keys that sign what a server behind the guard
	// is told of the caller.
	PurposeAssertion Purpose = "assertion"
)

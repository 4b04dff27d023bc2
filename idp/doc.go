// Package idp signs people in: through an identity provider elsewhere, as a
// client of its OAuth 2.0 or OpenID Connect endpoints, or against local
// accounts.
//
// Every provider is an Upstream. Its constructor checks the options and does no
// I/O; what has to be discovered is loaded on first use or by Run. Each preset
// holds the quirks of one provider in the file named after it.
package idp

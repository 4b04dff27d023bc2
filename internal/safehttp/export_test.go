package safehttp

import (
	"context"
	"net"
	"net/netip"

	"code.dny.dev/ssrf"
)

// WithDial replaces the last step of a connection.
func (o GuardOptions) WithDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) GuardOptions {
	o.dial = dial
	return o
}

// ConnectCheck is the check of the address that a socket is about to connect
// to; private is that of an exempt origin.
func ConnectCheck(address string, private bool) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	rule := addressRule{guardian: ssrf.New(ssrf.WithPorts(to.Port())), private: private}
	return rule.control("tcp", address, nil)
}

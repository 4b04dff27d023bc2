package authclient

import "net/http"

// IsHostOf is what decides about the Host of a callback.
var IsHostOf = isHostOf

// WithGuarded replaces what makes requests to URLs that a server named.
func (o Options) WithGuarded(t http.RoundTripper) (Options, error) {
	n, err := newNetwork(&o)
	if err != nil {
		return o, err
	}
	n.guarded = t
	o.network = n
	return o, nil
}

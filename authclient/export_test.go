package authclient

import "net/http"

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

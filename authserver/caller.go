package authserver

import "context"

type callerKey struct{}

// ContextWithCaller returns a context that carries the network address of
// whoever made the request. Documents counts failed fetches by it. The Server
// does this for the requests that it serves.
func ContextWithCaller(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, callerKey{}, address)
}

// callerOf is the address in the context, "" if there is none.
func callerOf(ctx context.Context) string {
	address, _ := ctx.Value(callerKey{}).(string)
	return address
}

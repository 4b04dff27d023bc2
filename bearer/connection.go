package bearer

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
)

// ConnContext is for http.Server.ConnContext and is not needed for anything but
// speed: with it, Pass need not give each request over HTTP/1 a context of its
// own to be able to end it, but for those with GET. A request that ends with its
// token then takes its connection along, which has no other request.
//
// It does nothing where the server has a BaseContext that can end, and where the
// connection cannot stop reading alone, as those of some listener wrappers.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	reader := findReadCloser(conn)
	if reader == nil || ctx.Done() != nil { // which would keep the connection until then
		return ctx
	}
	c := &connection{reader: reader}
	ctx, c.cancel = context.WithCancelCause(ctx)
	return &connContext{ctx, c}
}

// connection is one over which HTTP/1 may be spoken.
type connection struct {
	reader readCloser
	cancel context.CancelCauseFunc
	ended  atomic.Bool
}

// readCloser is a *net.TCPConn or *net.UnixConn.
type readCloser interface{ CloseRead() error }

// findReadCloser looks below TLS; nil if there is none.
func findReadCloser(conn net.Conn) readCloser {
	for conn != nil {
		if reader, ok := conn.(readCloser); ok {
			return reader
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
	return nil
}

// end cancels the request that the connection has. The answer may still be
// written; there is no further request.
func (c *connection) end(why error) {
	c.ended.Store(true)
	c.cancel(why)
	_ = c.reader.CloseRead() // it may be closed already
}

// connContext is a context.WithValue that is quicker to ask.
type connContext struct {
	context.Context
	connection *connection
}

type connectionKey struct{}

// Value returns the connection for its key.
func (c *connContext) Value(key any) any {
	if key == (connectionKey{}) {
		return c.connection
	}
	return c.Context.Value(key)
}

// connectionOf returns the connection that may end with the request, nil if it may
// not, or is not known. Event streams and long polls that are opened with GET are
// to end without their connection, which the client may have for its next request
// in the same moment.
func connectionOf(r *http.Request) *connection {
	if r.ProtoMajor != 1 || r.Method == http.MethodGet {
		return nil
	}
	ctx := r.Context()
	c, _ := ctx.Value(connectionKey{}).(*connection)
	if c == nil || ctx.Done() == nil { // cut off, it does not end with the connection
		return nil
	}
	return c
}

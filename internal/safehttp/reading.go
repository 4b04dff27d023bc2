package safehttp

import (
	"net/http"
	"strings"
	"time"
)

// RefusalTime is how long a client may go on sending the body of a request that
// is answered without being read. net/http reads on before it sends the answer,
// so that without a bound a slow client would hold the connection.
const RefusalTime = 2 * time.Second

// BoundReading bounds how long the body of r may take from now on; 0 lifts the
// bound. A later bound replaces it, and the next request on the connection has
// its own.
// Writers that know no deadline are left alone.
func BoundReading(w http.ResponseWriter, r *http.Request, limit time.Duration) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return
	}
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	// http.ErrNotSupported, from test recorders: there is no connection to hold.
	_ = http.NewResponseController(w).SetReadDeadline(deadline)
}

// RefuseBody makes the answer to r go out at once though its client holds the
// body back until it is asked for it (RFC 9110 §10.1.1): net/http would wait
// RefusalTime for a body that nobody sends. The connection closes, as the client
// may send the body all the same. It is for a body of which nothing was read;
// of another one, the rest is on its way.
func RefuseBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		w.Header().Set("Connection", "close")
	}
}

package bearer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// answer is the writer and the state of one admitted request on its way
// through. It works with http.ResponseController.
type answer struct {
	http.ResponseWriter
	stream

	guard   *Guard
	request *http.Request
	scopes  []string    // that the request needed
	session session     // used if binds is set
	filter  *listFilter // nil if lists are not filtered

	binds bool
	// began tells that the handler has said its status, sent that the header is on
	// its way.
	began, sent bool
	events      bool // text/event-stream
	hijacked    bool
	failed      bool // ended for a reason of our own
}

// errEnded is what a handler gets that writes after its request was ended.
var errEnded = errors.New("the request was ended")

// pass lets next answer.
func (a *answer) pass(next func(http.ResponseWriter, *http.Request) error) (err error) {
	r := a.endable()
	a.guard.streams.add(&a.stream)
	returned := false
	defer func() {
		a.remove()
		if a.cancel != nil {
			a.cancel(nil)
		}
		if a.binds {
			stripAnswerTrailer(a.Header())
		}
		if a.ended.Load() == nil {
			return
		}
		if !returned {
			// reverse_proxy panics to say that an answer is not complete.
			if p := recover(); p != nil && !isAbort(p) {
				panic(p)
			}
		}
		a.close(returned && err == nil)
		err = nil
	}()
	err = next(a, r)
	if a.ended.Load() == nil {
		a.finish(err == nil)
	}
	returned = true
	return err
}

// endable returns the request, so that the stream can cancel it: through its
// connection, else with a context of its own.
func (a *answer) endable() *http.Request {
	if a.connection = connectionOf(a.request); a.connection != nil {
		if a.connection.ended.Load() {
			panic(http.ErrAbortHandler) // sent before the one that was ended had its answer
		}
		return a.request
	}
	var ctx context.Context
	ctx, a.cancel = context.WithCancelCause(a.request.Context())
	if a.losesConnection() {
		a.reader = http.NewResponseController(a.ResponseWriter)
	}
	return a.request.WithContext(ctx)
}

func isAbort(p any) bool {
	err, ok := p.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

// finish completes the answer of a handler that has returned. With an error,
// somebody else writes it, but with the header that is here.
func (a *answer) finish(complete bool) {
	if !a.began {
		if !a.prepareHeader() {
			return
		}
		if cors, ok := a.ResponseWriter.(*corsWriter); ok {
			cors.setHeaders()
		}
		return
	}
	if complete && a.filter != nil {
		a.filter.finish(a)
	}
}

// prepareHeader makes the header of the server behind fit to be sent.
func (a *answer) prepareHeader() bool {
	if !a.binds {
		return true
	}
	if err := a.session.bind(a.Header(), a.owner()); err != nil {
		a.fail(noSessionKey(err))
		return false
	}
	stripAnnounced(a.Header())
	return true
}

func (a *answer) owner() sessionOwner {
	return sessionOwner{keys: a.guard.sessionKey, resource: a.resource.Identifier, info: a.info, token: a.token}
}

// fail ends the request for a reason of our own.
func (a *answer) fail(why *oauth.Error) {
	a.guard.logger.LogAttrs(a.request.Context(), slog.LevelError, "answer withheld", slog.String("reason", why.Error()))
	a.failed = true
	a.end(why)
}

// close says to the client that the request was ended.
func (a *answer) close(complete bool) {
	switch {
	case a.hijacked:
	case !a.sent:
		a.refuse(a.ended.Load())
	case a.losesConnection():
		panic(http.ErrAbortHandler) // the client must not use it again
	case a.events, complete && !a.failed:
		// An event stream may end anywhere: the client connects again.
	default:
		panic(http.ErrAbortHandler) // it must not look complete
	}
}

// losesConnection reports whether the connection has no other request after this
// one, which was ended: because that took its connection along, or because it has
// a body that may not have been read. What is left of that must not be taken for
// another request, and net/http does not see to it if somebody in front has
// wrapped the body, as Caddy does.
func (a *answer) losesConnection() bool {
	r := a.request
	return r.ProtoMajor == 1 && (a.connection != nil || r.ContentLength != 0)
}

// refuse answers in place of the server behind.
func (a *answer) refuse(why *oauth.Error) {
	h := a.Header()
	for _, name := range []string{
		"Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Trailer", sessionHeader,
	} {
		delete(h, name)
	}
	dropDigests(h)
	if a.losesConnection() {
		h["Connection"] = []string{"close"}
	}
	a.sent = true
	if why.HTTPStatus() < http.StatusInternalServerError && !isSafe(a.request.Method) {
		// RFC 9110 §15.5: 401 and 403 say that nothing was done, and clients may get
		// another token and send the request once more.
		why = oauth.NewError("gateway_timeout", "The access token ended while the request was running; it may have taken effect").
			WithStatus(http.StatusGatewayTimeout).Because(why)
	}
	(&refusal{err: why, scopes: a.scopes, metadataURL: a.resource.metadataURL}).write(a.ResponseWriter, a.request)
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// over reports whether the request was ended: the server behind has no more to
// say.
func (a *answer) over() bool { return a.ended.Load() != nil }

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.over() || a.began || !a.prepareHeader() {
		return
	}
	// Interim answers (RFC 9110 §15.2) are not the last; 101 is.
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		a.ResponseWriter.WriteHeader(status)
		return
	}
	a.began = true
	a.events = answerType(a.Header()) == "text/event-stream"
	if a.filter != nil {
		if refused := a.filter.begin(a, status); refused != nil {
			a.fail(refused)
			return
		}
		if a.filter.holds() {
			return
		}
	}
	a.send(status)
}

func (a *answer) send(status int) {
	a.sent = true
	a.ResponseWriter.WriteHeader(status)
}

func answerType(h http.Header) string {
	values := h["Content-Type"]
	if len(values) == 0 {
		return ""
	}
	switch values[0] {
	case "application/json", "text/event-stream": // most answers
		return values[0]
	}
	t, _, err := mime.ParseMediaType(values[0])
	if err != nil && t == "" {
		return values[0]
	}
	return t
}

// ready reports whether the body may be written, with the header before it.
func (a *answer) ready() bool {
	if !a.began {
		a.WriteHeader(http.StatusOK)
	}
	return !a.over()
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.ready() {
		return 0, errEnded
	}
	if a.filter != nil && !a.filter.passes() {
		return a.filter.write(a, b)
	}
	return a.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of the writer below, if it has one.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	if !a.ready() {
		return 0, errEnded
	}
	if a.events || a.filter != nil && !a.filter.passes() {
		return io.Copy(struct{ io.Writer }{a}, r)
	}
	return io.Copy(a.ResponseWriter, r)
}

// FlushError is for http.ResponseController: a flush writes the header.
func (a *answer) FlushError() error {
	if !a.ready() {
		return errEnded
	}
	if a.filter != nil && a.filter.holds() && !a.filter.startEarly(a) {
		return nil
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush is for handlers that look for an http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

// Hijack is for handlers that look for an http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.over() {
		return nil, nil, errEnded
	}
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.began, a.sent, a.hijacked = true, true, true
	}
	return conn, rw, err
}

// Push is for handlers that look for an http.Pusher.
func (a *answer) Push(target string, options *http.PushOptions) error {
	if pusher, ok := a.ResponseWriter.(http.Pusher); ok {
		return pusher.Push(target, options)
	}
	return http.ErrNotSupported
}

// Interface guards
var (
	_ http.Flusher  = (*answer)(nil)
	_ http.Hijacker = (*answer)(nil)
	_ http.Pusher   = (*answer)(nil)
	_ io.ReaderFrom = (*answer)(nil)
)

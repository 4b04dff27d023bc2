package bearer

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// keptBuffer is the size up to which a buffer is kept for the next request.
const keptBuffer = 64 << 10

// callBuffer is what reading the calls of a request takes.
type callBuffer struct {
	data     []byte
	messages []strictjson.Message
	calls    []Call
	// holdsBody tells that data is the body of the request.
	holdsBody bool
}

var callBuffers = sync.Pool{New: func() any { return &callBuffer{data: make([]byte, 0, 4<<10)} }}

// release gives the buffer back. Nothing may use it afterwards.
func (b *callBuffer) release() {
	b.forget()
	if cap(b.data) > keptBuffer {
		return
	}
	b.data, b.holdsBody = b.data[:0], false
	callBuffers.Put(b)
}

// forget drops what the calls hold on to.
func (b *callBuffer) forget() {
	clear(b.messages)
	clear(b.calls)
	b.messages, b.calls = b.messages[:0], b.calls[:0]
}

// read reads the body of r, at most limit bytes in at most the given time.
func (b *callBuffer) read(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) *oauth.Error {
	if r.ContentLength > limit {
		return bodyTooLarge()
	}
	safehttp.BoundReading(w, r, within)
	for {
		if len(b.data) == cap(b.data) {
			b.data = append(b.data, 0)[:len(b.data)]
		}
		n, err := r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		if int64(len(b.data)) > limit {
			return bodyTooLarge()
		}
		if errors.Is(err, io.EOF) {
			// The deadline would cancel a long request when it passes.
			safehttp.BoundReading(w, r, 0)
			return nil
		}
		if err != nil {
			return bodyUnreadable(err)
		}
	}
}

func bodyTooLarge() *oauth.Error {
	return badCall("The body is larger than this resource accepts").WithStatus(http.StatusRequestEntityTooLarge)
}

func bodyUnreadable(err error) *oauth.Error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return badCall("The body took too long to arrive").WithStatus(http.StatusRequestTimeout)
	}
	return badCall("The body ended early").Because(err)
}

// callBody is a body that was read, to be read once more.
type callBody struct {
	io.Closer // of the body that was read

	mu     sync.Mutex
	buffer *callBuffer // nil once closed
	offset int
}

func (b *callBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buffer == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	rest := b.buffer.data[b.offset:]
	n := copy(p, rest)
	b.offset += n
	if n == len(rest) {
		return n, io.EOF
	}
	return n, nil
}

func (b *callBody) Close() error {
	b.mu.Lock()
	if b.buffer != nil {
		b.buffer.release()
		b.buffer = nil
	}
	b.mu.Unlock()
	return b.Closer.Close()
}

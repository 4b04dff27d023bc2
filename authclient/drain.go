package authclient

import (
	"io"
	"net/http"
	"time"
)

// Bounds of what is read of a refusal to keep its connection.
const (
	maxDrain     = 64 << 10 // bytes
	maxDrainTime = time.Second
)

// drain gives up the response. A body that does not end is closed, which takes
// its connection along.
func drain(resp *http.Response) {
	done := make(chan struct{})
	go func() { // ends with the body, at the latest when it is closed below
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
		_ = resp.Body.Close()
		close(done)
	}()
	timer := time.NewTimer(maxDrainTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		_ = resp.Body.Close()
	}
}

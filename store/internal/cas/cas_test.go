package cas_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/internal/cas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// contested is a record that others change before the first swaps.
type contested struct {
	value   []byte
	changes int
}

func (c *contested) Read(context.Context) ([]byte, error) { return c.value, nil }

func (c *contested) Swap(_ context.Context, old, value []byte, _ time.Duration) ([]byte, bool, error) {
	if c.changes > 0 {
		c.changes--
		c.value = append([]byte("changed "), byte('0'+c.changes%10))
	}
	if !bytes.Equal(old, c.value) {
		return c.value, false, nil
	}
	c.value = value
	return nil, true, nil
}

func TestUpdate(t *testing.T) {
	c := &contested{value: []byte("first"), changes: 20}
	runs := 0
	err := cas.Update(t.Context(), c, func(old []byte) ([]byte, time.Duration, error) {
		runs++
		return append(old, '+'), 0, nil
	})
	if err != nil || string(c.value) != "changed 0+" || runs != 21 {
		t.Errorf("after %d runs: %q, %v", runs, c.value, err)
	}

	for name, value := range map[string][]byte{"a value": []byte("mine"), "none": nil} {
		synctest.Test(t, func(t *testing.T) { conflict(t, name, value) })
	}

	ctx, cancel := context.WithCancel(t.Context())
	c = &contested{changes: 1 << 30}
	runs = 0
	err = cas.Update(ctx, c, func([]byte) ([]byte, time.Duration, error) {
		if runs++; runs == 12 {
			cancel()
		}
		return []byte("mine"), 0, nil
	})
	if !errors.Is(err, context.Canceled) || runs != 12 {
		t.Errorf("cancelled after %d runs: %v", runs, err)
	}
}

// conflict is about a record that changes for ever.
func conflict(t *testing.T, name string, value []byte) {
	c := &contested{value: []byte("first"), changes: 1 << 30}
	start := time.Now()
	err := cas.Update(t.Context(), c, func([]byte) ([]byte, time.Duration, error) { return value, 0, nil })
	if !errors.Is(err, store.ErrConflict) || bytes.Equal(c.value, value) {
		t.Errorf("changed for ever, to become %s: %q, %v", name, c.value, err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it tried for %v", took)
	}
}

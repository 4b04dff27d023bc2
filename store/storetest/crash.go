package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// crashEnv holds the place at which a process that is to be killed writes.
const crashEnv = "STORETEST_CRASH_PLACE"

// crashWriters is how many goroutines write.
const crashWriters = 8

// CrashMain is to be called first in TestMain of a package that uses Crash. In
// the process that Crash starts it writes until it is killed, else it returns.
func CrashMain(open func(place string) (store.Store, error)) {
	place := os.Getenv(crashEnv)
	if place == "" {
		return
	}
	s, err := open(place)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for i := range crashWriters {
		wg.Go(func() {
			n, err := crashed(context.Background(), s, i)
			for err == nil {
				n++
				if err = crashStep(s, i, n); err == nil {
					out.Lock()
					fmt.Println(i, n) // one write(2): the acknowledgement
					out.Unlock()
				}
			}
			fmt.Fprintln(os.Stderr, err)
		})
	}
	wg.Wait()
	os.Exit(1)
}

// crashStep does the n-th step of a writer: a Put, an Update and a Take.
func crashStep(s store.Store, writer, n int) error {
	ctx := context.Background()
	if err := s.Put(ctx, crashKey(writer, n), []byte(strconv.Itoa(n)), time.Hour); err != nil {
		return err
	}
	if err := s.Update(ctx, crashKey(writer, 0), increment); err != nil {
		return err
	}
	if n == 1 {
		return nil
	}
	_, err := s.Take(ctx, crashKey(writer, n-1))
	if errors.Is(err, store.ErrNotFound) {
		return nil // taken, and killed before it could say so
	}
	return err
}

// crashKey returns the key of a writer's step, and of its counter for 0.
func crashKey(writer, n int) string { return fmt.Sprintf("crash/%d/%d", writer, n) }

// crashed returns a writer's counter.
func crashed(ctx context.Context, s store.Store, writer int) (int, error) {
	value, err := s.Get(ctx, crashKey(writer, 0))
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(value))
}

// Crash starts this test binary again to write at the place, kills it in the
// middle, with kill if that is not nil, opens the place and checks that nothing
// is lost that was acknowledged; five times over.
func Crash(t *testing.T, place string, open func(place string) (store.Store, error), kill func()) {
	t.Helper()
	for round := range 5 {
		acknowledged := writeAndDie(t, place, 100+150*round, kill)
		s, err := open(place)
		if err != nil {
			t.Fatalf("round %d: it does not open: %v", round, err)
		}
		for writer, last := range acknowledged {
			if last == 0 {
				continue
			}
			count, err := crashed(t.Context(), s, writer)
			if err != nil || count < last || count > last+1 {
				t.Errorf("round %d: writer %d was told of %d steps, the counter is at %d, %v", round, writer, last, count, err)
			}
			present(t, s, crashKey(writer, count), strconv.Itoa(count))
			absent(t, s, crashKey(writer, last-1)) // last-1 was taken before last was acknowledged
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeAndDie returns the last step that each writer was told is done.
func writeAndDie(t *testing.T, place string, steps int, kill func()) [crashWriters]int {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test again
	child.Env = append(os.Environ(), crashEnv+"="+place)
	var complaint strings.Builder
	child.Stderr = &complaint
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var last [crashWriters]int
	lines, seen := bufio.NewScanner(out), 0
	for lines.Scan() {
		var writer, n int
		if _, err := fmt.Sscan(lines.Text(), &writer, &n); err != nil {
			break // cut off
		}
		last[writer] = n
		if seen++; seen != steps {
			continue
		}
		if kill != nil {
			kill()
		}
		_ = child.Process.Kill() // SIGKILL; what is in the pipe is still read
	}
	_ = child.Wait()
	if seen < steps {
		t.Fatalf("the writer ended after %d of %d steps: %s", seen, steps, complaint.String())
	}
	return last
}

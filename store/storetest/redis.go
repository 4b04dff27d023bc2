//go:build unix

package storetest

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis is a redis-server of one test, on a loopback port, which writes every
// change to disk before it answers (appendonly, appendfsync always).
type Redis struct {
	// Address is its host:port; it stays over Kill and Start.
	Address string

	t      testing.TB
	args   []string
	server *exec.Cmd
	log    *bytes.Buffer
}

// StartRedis starts one and stops it when the test ends. It fails the test if
// there is no redis-server. Further arguments are settings, as in "--requirepass",
// "x".
func StartRedis(t testing.TB, settings ...string) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("these tests need redis-server: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{Address: listener.Addr().String(), t: t}
	_, port, _ := net.SplitHostPort(r.Address)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	r.args = append([]string{
		"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", "",
		"--appendonly", "yes", "--appendfsync", "always",
	}, settings...)
	r.Start()
	t.Cleanup(r.Kill)
	return r
}

// Start starts it again after Kill, with the data that it had.
func (r *Redis) Start() {
	r.t.Helper()
	r.log = new(bytes.Buffer)
	r.server = exec.Command("redis-server", r.args...) //nolint:gosec,noctx // killed by Kill
	r.server.Stdout, r.server.Stderr = r.log, r.log
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r.answers() {
			return
		}
	}
	r.Kill()
	r.t.Fatalf("redis-server does not answer:\n%s", r.log)
}

// answers reports whether it is up and has loaded its data. An error that asks
// for a password will do.
func (r *Redis) answers() bool {
	conn, err := net.DialTimeout("tcp", r.Address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
		return false
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	return err == nil && !strings.HasPrefix(string(answer[:n]), "-LOADING")
}

// Kill ends it with SIGKILL.
func (r *Redis) Kill() {
	if r.server == nil {
		return
	}
	_ = r.server.Process.Kill()
	_ = r.server.Wait()
	r.server = nil
}

// Pause makes it accept and answer nothing, until Resume.
func (r *Redis) Pause() { r.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (r *Redis) Resume() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.server.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

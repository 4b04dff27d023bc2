package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const startTime = 30 * time.Second

// process is a program that is measured or helps with it.
type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
	in  io.Closer
	log string
}

// start runs a program until its context ends or stop is called. What it says on
// standard error goes to a file.
func (b *bench) start(ctx context.Context, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(b.dir, name+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// says reads the line of JSON that a program of ours prints.
func (p *process) says(v any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		text, _ := os.ReadFile(p.log) //nolint:errcheck // the error is told anyway
		return fmt.Errorf("%s: %w: %.2000s", filepath.Base(p.cmd.Path), err, text)
	}
	return json.Unmarshal(line, v)
}

// child runs a part of this program as a process of its own.
func (b *bench) child(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.start(ctx, args[0], exec.Command(self, append([]string{"-child"}, args...)...))
}

// listening is what servers say when they listen.
type listening struct {
	Port int `json:"port"`
}

func (l listening) addr() string { return "127.0.0.1:" + strconv.Itoa(l.Port) }

// caddy is a running Caddy.
type caddy struct {
	*process
	admin string // host and port
}

// startCaddy runs Caddy with what is in a Caddyfile behind the global options,
// and waits until it listens at ready.
func (b *bench) startCaddy(ctx context.Context, name, globals, sites, ready string) (*caddy, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &caddy{admin: freeAddr()}
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\tadmin %s\n\tpersist_config off\n\tauto_https off\n\tstorage file_system %q\n\tlog {\n\t\tlevel WARN\n\t}\n%s}\n%s",
		c.admin, filepath.Join(dir, "storage"), globals, sites)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(b.caddy, "run", "--adapter", "caddyfile", "--config", config) //nolint:gosec // the Caddy that was built
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	var err error
	if c.process, err = b.start(ctx, name, cmd); err != nil {
		return nil, err
	}
	for end := time.Now().Add(startTime); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", ready)
		if err == nil {
			return c, conn.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			c.stop()
			text, _ := os.ReadFile(c.log) //nolint:errcheck // the error is told anyway
			return nil, errors.Join(fmt.Errorf("caddy does not listen: %w: %s", err, text), ctx.Err())
		}
	}
}

// freeAddr is a TCP address on which nothing listened a moment ago.
func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no loopback, no benchmark
	}
	defer l.Close()
	return l.Addr().String()
}

// newListener takes a port and prints it.
func newListener() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return l, json.NewEncoder(os.Stdout).Encode(listening{l.Addr().(*net.TCPAddr).Port})
}

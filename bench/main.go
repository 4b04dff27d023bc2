// Command bench measures a Caddy with this plugin: the CPU time of the process
// for each request and the requests it answers in a second, beside something
// that does the same work, in one run.
//
//   - sdk: registration, tokens and authorization beside the TypeScript SDK's
//     router on Express with everything in memory
//   - durable: tokens with the bbolt store beside those with the memory store
//   - grants: the memory that live grants take
//   - guard: guarded requests beside reverse_proxy without a guard, and refused
//     ones; the memory of the token cache
//   - metadata: documents beside Caddy's respond
//
// It takes the medians of many short interleaved slices, so that whatever else
// the machine does hits both sides. Figures are for reading: the program fails
// only if something cannot be measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"
)

type bench struct {
	caddy, npm, dir string
	rounds          int
	sliceTime       time.Duration
	grants, tokens  int
	profile         time.Duration
	only            *regexp.Regexp
	idp             *idp
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		exitWith(runChild(os.Args[2:]))
	}
	b := new(bench)
	flag.StringVar(&b.caddy, "caddy", "caddy", "Caddy `binary` with this plugin")
	flag.StringVar(&b.npm, "npm", "npm", "`folder` with sdk.mjs and its node_modules")
	flag.StringVar(&b.dir, "dir", "bench-results", "`folder` on a disk for stores, logs and profiles")
	flag.IntVar(&b.rounds, "rounds", 7, "rounds of each measurement")
	flag.DurationVar(&b.sliceTime, "slice", 500*time.Millisecond, "time of each slice of a round")
	flag.IntVar(&b.grants, "grants", 100_000, "live grants whose memory is measured")
	flag.IntVar(&b.tokens, "tokens", 1_000_000, "distinct tokens that the token cache sees")
	flag.DurationVar(&b.profile, "profile", 0, "record a CPU profile of Caddy for this long under each load (0: none)")
	only := flag.String("run", "", "`regexp` of the measurements to run, by group/name, for example sdk or guard/broker")
	limit := flag.Duration("timeout", 10*time.Minute, "end after this time")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, stop := context.WithTimeout(ctx, *limit)
	defer stop()
	defer cancel()
	var err error
	if b.only, err = regexp.Compile(*only); err == nil {
		err = b.run(ctx)
	}
	exitWith(err)
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// group is a set of measurements that share their servers.
type group struct {
	name  string
	parts []string
	run   func(ctx context.Context, wanted func(part string) bool) error
}

func (b *bench) run(ctx context.Context) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	var err error
	if b.idp, err = startIDP(); err != nil {
		return err
	}
	defer b.idp.close()
	printMachine(b)
	for _, g := range []group{
		{"sdk", []string{"register", "code", "refresh", "authorize"}, b.besideSDK},
		{"durable", []string{"code", "refresh"}, b.durable},
		{"grants", []string{"memory", "bbolt"}, b.liveGrants},
		{"guard", []string{"jwt", "policy", "broker", "distinct"}, b.guard},
		{"metadata", []string{"documents"}, b.metadata},
	} {
		wanted := func(part string) bool { return b.only.MatchString(g.name + "/" + part) }
		some := false
		for _, part := range g.parts {
			some = some || wanted(part)
		}
		if !some {
			continue
		}
		if err := g.run(ctx, wanted); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return nil
}

// runChild is what a process of this program does that another one has started.
func runChild(args []string) error {
	switch args[0] {
	case "backend":
		return serveBackend()
	case "grants":
		return holdGrants(args[1:])
	case "tokens":
		return seeTokens(args[1:])
	}
	return fmt.Errorf("no child %q", args[0])
}

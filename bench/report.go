package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// target is what a ratio should be; zero is none.
type target struct {
	atMost, atLeast float64
}

func (t target) of(ratio float64) string {
	switch {
	case t.atMost > 0:
		return fmt.Sprintf("≤ %.2f %s", t.atMost, mark(ratio <= t.atMost))
	case t.atLeast > 0:
		return fmt.Sprintf("≥ %.2f %s", t.atLeast, mark(ratio >= t.atLeast))
	}
	return ""
}

func mark(good bool) string {
	if good {
		return "✓"
	}
	return "✗"
}

// row is a line of a table: what was measured beside what.
type row struct {
	*measurement
	cpu, rate target
}

// printTable writes a table. A/A are the two slices of the base beside each slice,
// one divided by the other: how far a ratio may be off.
func printTable(title, beside string, rows ...row) {
	fmt.Printf("\n%s (beside: %s)\n", title, beside)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tCPU µs\tbeside\tratio\ttarget\tA/A\treq/s\tbeside\tratio\ttarget\tA/A")
	for _, r := range rows {
		cpu, rate, beside := r.ratio(cpuOf), r.ratio(rateOf), slices.Concat(r.before, r.after)
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\t%s\t%.2f\t%.0f\t%.0f\t%.2f\t%s\t%.2f\n", r.name,
			typical(r.samples, cpuOf)/float64(time.Microsecond), typical(beside, cpuOf)/float64(time.Microsecond), cpu, r.cpu.of(cpu), r.self(cpuOf),
			typical(r.samples, rateOf), typical(beside, rateOf), rate, r.rate.of(rate), r.self(rateOf))
	}
	_ = w.Flush()
}

// printMachine tells what the figures belong to.
func printMachine(b *bench) {
	node, _ := exec.Command("node", "--version").Output() //nolint:errcheck // shows as empty
	cpu := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := bytes.Cut(info, []byte("model name\t: ")); ok {
			name, _, _ := bytes.Cut(rest, []byte("\n"))
			cpu = string(name)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg") //nolint:errcheck // shows as empty
	average, _, _ := strings.Cut(string(load), " ")
	fmt.Printf("%s, %d cores, load %s before, %s %s/%s, node %s, %s; medians of %d rounds with slices of %s\n",
		cpu, runtime.NumCPU(), average, runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(node)),
		time.Now().UTC().Format(time.DateOnly), b.rounds, b.sliceTime)
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// variant is one of the things that are compared: a process under a load.
type variant struct {
	name string
	pid  int
	load *load
	// prepare, if set, is called before each slice and not measured.
	prepare func(ctx context.Context) error
	// unlike is how many of its requests differ. All are sent before anything is
	// measured.
	unlike int
}

// sample is one slice of a measurement.
type sample struct {
	cpu  time.Duration // of the server, a request
	rate float64       // requests a second
	took time.Duration // all of it
	sent int           // requests
}

// measurement are the slices of one variant, a round each.
type measurement struct {
	name    string
	samples []sample
	// before and after are the slices of the first variant on both sides of each.
	before, after []sample
}

// comparison runs variants one after the other, round by round, so that what
// else the machine does hits all alike. The first variant is what the others
// are compared with; it runs before and after each of them, and the ratio of the
// two tells how good the measurement is.
type comparison struct {
	b        *bench
	variants []variant
	got      []*measurement
}

// compare runs all rounds.
func (b *bench) compare(ctx context.Context, variants ...variant) ([]*measurement, error) {
	c, err := b.newComparison(ctx, variants...)
	if err != nil {
		return nil, err
	}
	for range b.rounds {
		if err := c.round(ctx); err != nil {
			return nil, err
		}
	}
	return c.got, nil
}

// Servers with a JIT compiler are slow at first: each runs for warmTime, or
// warmSlices where slices are short, before it is measured.
const (
	warmTime   = 2 * time.Second
	warmSlices = 8
)

// newComparison warms the variants up.
func (b *bench) newComparison(ctx context.Context, variants ...variant) (*comparison, error) {
	c := &comparison{b: b, variants: variants}
	for _, v := range variants {
		c.got = append(c.got, &measurement{name: v.name})
		warm, sent := time.Duration(0), 0
		for i := 0; i < warmSlices && warm < warmTime || sent < 2*v.unlike; i++ { // some connections are faster
			s, err := b.slice(ctx, v)
			if err != nil {
				return nil, err
			}
			warm, sent = warm+s.took, sent+s.sent
		}
	}
	return c, nil
}

func (c *comparison) round(ctx context.Context) error {
	before, err := c.b.slice(ctx, c.variants[0])
	if err != nil {
		return err
	}
	for i, v := range c.variants[1:] {
		s, err := c.b.slice(ctx, v)
		if err != nil {
			return err
		}
		after, err := c.b.slice(ctx, c.variants[0])
		if err != nil {
			return err
		}
		m := c.got[i+1]
		m.samples, m.before, m.after = append(m.samples, s), append(m.before, before), append(m.after, after)
		before = after
	}
	return nil
}

// leadIn is the part of a slice's time for which it runs before it is measured.
const leadIn = 4

func (b *bench) slice(ctx context.Context, v variant) (sample, error) {
	if v.prepare != nil {
		if err := v.prepare(ctx); err != nil {
			return sample{}, fmt.Errorf("preparing %s: %w", v.name, err)
		}
	}
	if v.prepare == nil {
		// What has rested since its last slice is to be in the caches again.
		if _, _, err := v.load.run(ctx, b.sliceTime/leadIn); err != nil {
			return sample{}, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	before, err := cpuTime(v.pid)
	if err != nil {
		return sample{}, err
	}
	requests, took, err := v.load.run(ctx, b.sliceTime)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", v.name, err)
	}
	after, err := cpuTime(v.pid)
	if err != nil {
		return sample{}, err
	}
	if requests == 0 {
		return sample{}, fmt.Errorf("%s: no request in %s", v.name, took)
	}
	return sample{cpu: (after - before) / time.Duration(requests), rate: float64(requests) / took.Seconds(), took: took, sent: requests}, nil
}

func cpuOf(s sample) float64  { return float64(s.cpu) }
func rateOf(s sample) float64 { return s.rate }

// ratio is the median over the rounds of m divided by the first variant.
func (m *measurement) ratio(of func(sample) float64) float64 {
	ratios := make([]float64, len(m.samples))
	for i, s := range m.samples {
		ratios[i] = 2 * of(s) / (of(m.before[i]) + of(m.after[i]))
	}
	return median(ratios)
}

// self is the ratio of the first variant's two slices beside m in each round.
func (m *measurement) self(of func(sample) float64) float64 {
	ratios := make([]float64, len(m.before))
	for i, s := range m.before {
		ratios[i] = of(m.after[i]) / of(s)
	}
	return median(ratios)
}

// typical is the median.
func typical(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, of(s))
	}
	return median(values)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

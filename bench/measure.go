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
}

// sample is one slice of a measurement.
type sample struct {
	cpu  time.Duration // of the server, a request
	rate float64       // requests a second
}

// measurement are the slices of one variant, a round each.
type measurement struct {
	name    string
	samples []sample
	// again are the first variant's second slices, one a round.
	again []sample
}

// compare runs the variants one after the other, round by round, so that what
// else the machine does hits all alike. The first variant is what the others
// are compared with; it runs at the beginning and at the end of each round, and
// the ratio of the two tells how good the measurement is.
func (b *bench) compare(ctx context.Context, variants ...variant) ([]*measurement, error) {
	out := make([]*measurement, len(variants))
	for i, v := range variants {
		out[i] = &measurement{name: v.name}
		if _, err := b.slice(ctx, v); err != nil { // to warm up
			return nil, err
		}
	}
	for range b.rounds {
		for i, v := range variants {
			s, err := b.slice(ctx, v)
			if err != nil {
				return nil, err
			}
			out[i].samples = append(out[i].samples, s)
		}
		s, err := b.slice(ctx, variants[0])
		if err != nil {
			return nil, err
		}
		out[0].again = append(out[0].again, s)
	}
	return out, nil
}

func (b *bench) slice(ctx context.Context, v variant) (sample, error) {
	if v.prepare != nil {
		if err := v.prepare(ctx); err != nil {
			return sample{}, fmt.Errorf("preparing %s: %w", v.name, err)
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
	return sample{cpu: (after - before) / time.Duration(requests), rate: float64(requests) / took.Seconds()}, nil
}

func cpuOf(s sample) float64  { return float64(s.cpu) }
func rateOf(s sample) float64 { return s.rate }

// ratio is the median over the rounds of m divided by base.
func (m *measurement) ratio(base *measurement, of func(sample) float64) float64 {
	ratios := make([]float64, len(m.samples))
	for i, s := range m.samples {
		ratios[i] = 2 * of(s) / (of(base.samples[i]) + of(base.again[i]))
	}
	return median(ratios)
}

// self is the ratio of the two slices that base has in each round.
func (m *measurement) self(of func(sample) float64) float64 {
	ratios := make([]float64, len(m.samples))
	for i, s := range m.samples {
		ratios[i] = of(m.again[i]) / of(s)
	}
	return median(ratios)
}

// typical is the median.
func (m *measurement) typical(of func(sample) float64) float64 {
	values := make([]float64, 0, len(m.samples)+len(m.again))
	for _, s := range slices.Concat(m.samples, m.again) {
		values = append(values, of(s))
	}
	return median(values)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// durable measures tokens whose grants are on a disk. Perfect sharing of fsyncs
// by 64 clients that wait for theirs would allow 64 writes for each.
func (b *bench) durable(ctx context.Context, wanted func(string) bool) error {
	memory, inMemory, err := b.startBroker(ctx, "durable-memory", "memory")
	if err != nil {
		return err
	}
	defer memory.stop()
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	bbolt, onDisk, err := b.startBroker(ctx, "durable-bbolt", fmt.Sprintf("bbolt %q", filepath.Join(dir, "durable-bbolt", "grants.db")))
	if err != nil {
		return err
	}
	defer bbolt.stop()
	codeWrites, refreshWrites, err := writesPerRequest(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nBroker with the bbolt store, 64 concurrent clients (beside: the memory store, and 64 × fsyncs/s ÷ writes per request)\n")
	for _, w := range []struct {
		part, name string
		load       func(*authServer, int) (*load, func(context.Context) error, error)
		writes     float64
	}{
		{"code", "/token, code", (*authServer).codeLoad, codeWrites},
		{"refresh", "/token, refresh", (*authServer).refreshLoad, refreshWrites},
	} {
		if !wanted(w.part) {
			continue
		}
		const connections = 64
		base, err := newVariant(w.name+" in memory", memory.pid(), inMemory, connections, w.load)
		if err != nil {
			return err
		}
		measured, err := newVariant(w.name, bbolt.pid(), onDisk, connections, w.load)
		if err != nil {
			return err
		}
		c, err := b.newComparison(ctx, base, measured)
		if err != nil {
			return err
		}
		var ratios, syncs []float64
		for i := range b.rounds {
			if err := c.round(ctx); err != nil {
				return err
			}
			perSecond, err := syncsPerSecond(b.dir, b.sliceTime)
			if err != nil {
				return err
			}
			inMemory := (c.got[1].before[i].rate + c.got[1].after[i].rate) / 2
			ratios = append(ratios, c.got[1].samples[i].rate/min(inMemory, connections*perSecond/w.writes))
			syncs = append(syncs, perSecond)
		}
		if err := b.profileLoad(ctx, bbolt, "durable-"+w.part, measured); err != nil {
			return err
		}
		base.load.close()
		measured.load.close()
		disk := c.got[1]
		mem := slices.Concat(disk.before, disk.after)
		ratio := median(ratios)
		fmt.Printf("%-16s %.0f req/s, memory %.0f (A/A %.2f); CPU %.1f µs, memory %.1f; %.0f fsyncs/s, %.2g writes a request, so %.0f req/s; ratio to the lesser %.2f, target %s\n",
			w.name, typical(disk.samples, rateOf), typical(mem, rateOf), disk.self(rateOf), typical(disk.samples, cpuOf)/float64(time.Microsecond),
			typical(mem, cpuOf)/float64(time.Microsecond), median(syncs), w.writes, connections*median(syncs)/w.writes, ratio, target{atLeast: 0.7}.of(ratio))
	}
	return nil
}

package proxyprovider

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// runInterval is how often Run looks after the keys and writes down uses.
	runInterval = time.Minute
	// sweepInterval is how often one of the nodes sweeps the indexes.
	sweepInterval = time.Hour
	// usePrecision is how exact GrantInfo.LastUsed is.
	usePrecision = 10 * time.Minute
	// maxUsed bounds how many uses wait to be written.
	maxUsed = 1 << 14
)

// Run keeps house until ctx ends: it rotates the signing keys and publishes the
// next one in time, writes down when grants were last used, and sweeps the
// indexes. Without it keys are rotated when they are used, and the rest waits.
func (g *Grants) Run(ctx context.Context) {
	ticker := time.NewTicker(runInterval)
	defer ticker.Stop()
	g.reseal(ctx)
	var swept time.Time
	for {
		g.report(ctx, "the signing keys could not be looked after", g.keys.load(ctx, 0))
		g.report(ctx, "the last uses of grants could not be written", g.writeUses(ctx))
		if now := time.Now(); now.Sub(swept) >= sweepInterval {
			swept = now
			g.report(ctx, "the indexes of grants could not be swept", g.sweep(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (g *Grants) report(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		g.cfg.Logger.Warn(what, slog.Any("error", err))
	}
}

// reseal writes the signing keys as they are, so that the store seals them with
// its first key: dropping an old one must not drop them.
func (g *Grants) reseal(ctx context.Context) {
	if g.keys.load(ctx, 0) != nil {
		return // reported soon
	}
	err := g.keys.maintain(ctx, g.cfg.Now(), func(keys []*signingKey) ([]*signingKey, error) { return keys, nil })
	g.report(ctx, "the signing keys could not be written", err)
}

// sweep is done by one node in sweepInterval: the lease is not given back.
func (g *Grants) sweep(ctx context.Context) error {
	lease, err := g.takeLease(ctx, "sweep", sweepInterval-runInterval)
	if lease == nil {
		return err
	}
	return g.sweepIndexes(ctx)
}

// usedGrants are the grants whose use is to be written down, off the path of
// requests.
type usedGrants struct {
	mu sync.Mutex
	m  map[grantID]stamp
}

// noteUse remembers that a grant is in use if that was not written lately.
func (g *Grants) noteUse(id grantID, s grantStatus) {
	now := stampOf(g.cfg.Now())
	if now.since(s.lastUsed) < usePrecision {
		return
	}
	g.used.mu.Lock()
	defer g.used.mu.Unlock()
	if g.used.m == nil {
		g.used.m = make(map[grantID]stamp)
	}
	if _, known := g.used.m[id]; known || len(g.used.m) < maxUsed {
		g.used.m[id] = now
	}
}

// writeUses writes them down.
func (g *Grants) writeUses(ctx context.Context) error {
	g.used.mu.Lock()
	uses := g.used.m
	g.used.m = nil
	g.used.mu.Unlock()
	var failed error
	for id, at := range uses {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := g.change(ctx, id, func(s *grantSnapshot) error {
			if at.since(s.lastUsed) < usePrecision {
				return errUnchanged
			}
			s.lastUsed = at
			return nil
		})
		if !errors.Is(err, errUnchanged) && !errors.Is(err, errGrantOver) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

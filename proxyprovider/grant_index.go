package proxyprovider

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// A user's grants are indexed in one record. Grants end without telling it, by
// their time or in a flood of logins; entries without a grant are dropped when
// somebody stumbles over them, by the sweep of Run, and when no grant can last as
// long as they are old.
//
// Grants of a client have no index: a popular client has one for every user, far
// more than a record holds, and a record for each would double the writes of a
// login. RevokeClient, which an operator asks for once in a while, looks at all.

const (
	indexFormat = 1
	// maxIndexed is how many grants a user can have; the longest idle one goes.
	maxIndexed = 1000
	// indexSettle is how old an entry must be to be dropped for want of a grant:
	// that one is written after the entry.
	indexSettle = 5 * time.Minute
)

// indexEntry is one grant of a user.
type indexEntry struct {
	id grantID
	// client is the beginning of the SHA-256 of the client's id.
	client [8]byte
	added  stamp
}

// indexKey is the store's key of a user's index. Half of the hash is enough to
// tell users apart, and what is listed is compared with the whole.
func indexKey(subject string) string { return subjectPrefix + subject[:min(len(subject), 22)] }

func clientHash(clientID string) (h [8]byte) {
	sum := sha256.Sum256([]byte(clientID))
	copy(h[:], sum[:])
	return h
}

// encodeIndex returns the record: format, then for each entry its id, client
// and time.
func encodeIndex(entries []indexEntry) []byte {
	w := recordWriter{b: make([]byte, 0, 2+32*len(entries))}
	w.b = append(w.b, indexFormat)
	w.number(uint64(len(entries)))
	for _, e := range entries {
		w.b = append(w.b, e.id[:]...)
		w.b = append(w.b, e.client[:]...)
		w.number(uint64(e.added)) //nolint:gosec // after 1970
	}
	return w.b
}

var errIndex = errors.New("the index of a user's grants cannot be read")

func decodeIndex(b []byte) ([]indexEntry, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != indexFormat {
		return nil, errIndex
	}
	d := recordReader{b: b[1:]}
	n := d.number(maxIndexed)
	entries := make([]indexEntry, 0, min(n, uint64(len(d.b)/25))) //nolint:gosec // small
	for range n {
		var e indexEntry
		d.fill(e.id[:])
		d.fill(e.client[:])
		e.added = stamp(d.number(1 << 50)) //nolint:gosec // bounded
		if d.bad {
			break
		}
		entries = append(entries, e)
	}
	if d.bad || len(d.b) > 0 {
		return nil, errIndex
	}
	return entries, nil
}

// errFull says that room must be made first.
var errFull = errors.New("the user has as many grants as there may be")

// addToIndex adds the grant to its user's, and makes room for it if need be.
func (g *Grants) addToIndex(ctx context.Context, id grantID, r *grantRecord, now time.Time) error {
	mine := indexEntry{id: id, client: clientHash(r.clientID), added: stampOf(now)}
	key := indexKey(r.subjectKey())
	for range swapTries {
		err := g.updateIndex(ctx, key, func(entries []indexEntry) ([]indexEntry, error) {
			if slices.ContainsFunc(entries, func(e indexEntry) bool { return e.id == id }) {
				return nil, errUnchanged
			}
			entries = slices.DeleteFunc(entries, func(e indexEntry) bool { return stampOf(now).since(e.added) > g.cfg.RefreshTTL+codeTTL })
			if len(entries) >= maxIndexed || countClient(entries, mine.client) >= g.cfg.MaxPerUserAndClient {
				return nil, errFull
			}
			return append(entries, mine), nil
		})
		if !errors.Is(err, errFull) {
			return err
		}
		if err := g.makeRoom(ctx, key, mine.client, now); err != nil {
			return err
		}
	}
	return storeTrouble(store.ErrConflict)
}

func countClient(entries []indexEntry, client [8]byte) (n int) {
	for _, e := range entries {
		if e.client == client {
			n++
		}
	}
	return n
}

// errUnchanged makes updateIndex leave the record alone.
var errUnchanged = errors.New("the index is as it should be")

// updateIndex changes an index by compare-and-swap; fn is pure.
func (g *Grants) updateIndex(ctx context.Context, key string, fn func([]indexEntry) ([]indexEntry, error)) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	err = backend.store.Update(ctx, key, func(old []byte) ([]byte, time.Duration, error) {
		entries, err := decodeIndex(old)
		if err != nil {
			return nil, 0, err
		}
		if entries, err = fn(entries); err != nil {
			return nil, 0, err
		}
		if len(entries) == 0 {
			return nil, 0, nil
		}
		return encodeIndex(entries), g.cfg.RefreshTTL + time.Hour, nil
	})
	switch {
	case err == nil, errors.Is(err, errUnchanged):
		return nil
	case errors.Is(err, errFull), errors.Is(err, errIndex):
		return err
	case errors.Is(err, store.ErrUnreadable):
		// Its key was dropped, and with it all grants that it tells of.
		if err := backend.store.Delete(ctx, key); err != nil {
			return storeTrouble(err)
		}
		return errFull // once more
	}
	return storeTrouble(err)
}

// readIndex returns the entries of a user.
func (g *Grants) readIndex(ctx context.Context, key string) ([]indexEntry, error) {
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	raw, err := backend.store.Get(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnreadable):
		return nil, nil
	case err != nil:
		return nil, storeTrouble(err)
	}
	return decodeIndex(raw)
}

// makeRoom drops from the client's entries those without a grant, and if there
// are none revokes the grant that was idle longest. If the client has room, it is
// the whole index that is full.
func (g *Grants) makeRoom(ctx context.Context, key string, client [8]byte, now time.Time) error {
	entries, err := g.readIndex(ctx, key)
	if err != nil {
		return err
	}
	wholeIndex := countClient(entries, client) < g.cfg.MaxPerUserAndClient
	var gone []grantID
	var idlest *grantSnapshot
	var pending []grantID
	for _, e := range entries {
		if !wholeIndex && e.client != client {
			continue
		}
		s, err := g.load(ctx, e.id)
		switch {
		case err != nil:
			return err
		case s == nil && stampOf(now).since(e.added) > indexSettle:
			gone = append(gone, e.id)
		case s == nil:
			pending = append(pending, e.id)
		case idlest == nil || s.lastUsed < idlest.lastUsed:
			idlest = s
		}
	}
	if len(gone) == 0 {
		switch {
		case idlest != nil:
			gone = append(gone, idlest.id)
			if err := g.bury(ctx, idlest.id, nil); err != nil {
				return err
			}
			g.cfg.Logger.Info("a user has too many grants for one client, the longest idle one is revoked",
				"client", hashID(idlest.clientID), "grant", hashID(idlest.id.String()))
		case len(pending) > 0: // logins of the last minutes that came to nothing
			gone = pending[:1]
		}
	}
	return g.dropFromIndex(ctx, key, gone)
}

// dropFromIndex removes entries.
func (g *Grants) dropFromIndex(ctx context.Context, key string, gone []grantID) error {
	if len(gone) == 0 {
		return nil
	}
	err := g.updateIndex(ctx, key, func(entries []indexEntry) ([]indexEntry, error) {
		kept := slices.DeleteFunc(slices.Clone(entries), func(e indexEntry) bool { return slices.Contains(gone, e.id) })
		if len(kept) == len(entries) {
			return nil, errUnchanged
		}
		return kept, nil
	})
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// sweepIndexes drops the entries of all users that have no grant any more.
func (g *Grants) sweepIndexes(ctx context.Context) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	now := g.cfg.Now()
	return backend.store.Scan(ctx, subjectPrefix, func(key string, value []byte) error {
		entries, err := decodeIndex(value)
		if err != nil {
			return nil //nolint:nilerr // another version's; the next user's
		}
		var gone []grantID
		for _, e := range entries {
			if stampOf(now).since(e.added) <= indexSettle {
				continue
			}
			s, err := g.load(ctx, e.id)
			if err != nil {
				return err
			}
			if s == nil {
				gone = append(gone, e.id)
			}
		}
		return g.dropFromIndex(ctx, key, gone)
	})
}

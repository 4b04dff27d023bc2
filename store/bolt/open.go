package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrDamaged is returned for a file that is not, or not any more, a database.
var ErrDamaged = errors.New("the store's file is damaged")

// ErrHeld is returned by Open when another store has the file open.
var ErrHeld = errors.New("the store's file is in use")

// format is the version of the file's layout.
const format = 1

// Options configures Open. Only Path is required.
type Options struct {
	// Path is the file. It is created with mode 0600 if it does not exist, and its
	// folder with 0700.
	Path string
	// OpenTimeout is how long Open waits for another process to let go of the
	// file; 10 s by default.
	OpenTimeout time.Duration
	// SweepInterval is how often the room of expired records is freed; a minute by
	// default.
	SweepInterval time.Duration
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Open opens the file. While another process holds it, as an old Caddy does that
// is being replaced, Open tries again until OpenTimeout and then returns an
// ErrHeld that names the holder if it can. A file that is no database is an
// ErrDamaged. The store owns two goroutines until it is closed.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Path == "" {
		return nil, errors.New("bolt: a path is required")
	}
	if o.OpenTimeout <= 0 {
		o.OpenTimeout = 10 * time.Second
	}
	if o.SweepInterval <= 0 {
		o.SweepInterval = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	db, err := openFile(ctx, path, o.OpenTimeout)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, path: path, now: o.Now, stop: make(chan struct{}), swept: make(chan struct{})}
	if err := s.update(s.prepare); err != nil {
		_ = db.Close()
		return nil, err
	}
	s.writer = newWriter(s)
	go s.sweepEvery(o.SweepInterval) //nolint:gosec // it outlives the context of Open and ends with Close
	return s, nil
}

// openFile waits for the file's lock.
func openFile(ctx context.Context, path string, timeout time.Duration) (*bbolt.DB, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the store's folder cannot be made: %w", err)
	}
	_, err := os.Stat(path)
	created := errors.Is(err, os.ErrNotExist)
	for deadline := time.Now().Add(timeout); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		db, err := openOnce(path)
		switch {
		case err == nil && created:
			// A new file's name is on disk only when its folder is.
			return db, syncFolder(dir)
		case err == nil:
			return db, nil
		case !errors.Is(err, bolterrors.ErrTimeout):
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: %s: %s", ErrHeld, path, holder(path))
		}
	}
}

// openOnce tries for a moment.
func openOnce(path string) (db *bbolt.DB, err error) {
	var file *os.File
	defer func() {
		if p := recover(); p != nil {
			if file != nil {
				// What is mapped stays so: bbolt has not handed it to us.
				unlock(file)
				_ = file.Close()
			}
			db, err = nil, damaged(path, fmt.Errorf("%v", p))
		}
	}()
	// A page that lies beyond the end of a file that was cut off is a fault, which
	// would end the program.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      100 * time.Millisecond,
		FreelistType: bbolt.FreelistMapType,
		// The statistics are a lock in each transaction.
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			file, err = os.OpenFile(name, flag, mode) //nolint:gosec // the operator's path
			return file, err
		},
	})
	var inPath *os.PathError
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, err
	case errors.As(err, &inPath):
		return nil, fmt.Errorf("the store's file cannot be opened: %w", err)
	case err != nil:
		return nil, damaged(path, err)
	}
	// The header says how much of the file is in use.
	if info, err := os.Stat(path); err == nil {
		tx, err := db.Begin(false)
		if err != nil {
			_ = db.Close()
			return nil, damaged(path, err)
		}
		used := tx.Size()
		_ = tx.Rollback()
		if info.Size() < used {
			_ = db.Close()
			return nil, damaged(path, fmt.Errorf("it has %d bytes and should have at least %d", info.Size(), used))
		}
	}
	return db, nil
}

func damaged(path string, cause error) error {
	return fmt.Errorf("%w: %s: %w: restore it from a backup, or move it away, after which everyone has to sign in again", ErrDamaged, path, cause)
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir) //nolint:gosec // the operator's path
	if err != nil {
		return err
	}
	defer folder.Close()
	_ = folder.Sync() // not every system can
	return nil
}

// prepare makes the buckets of a new file and refuses a newer layout.
func (s *Store) prepare(tx *bbolt.Tx) error {
	if meta := tx.Bucket(metaBucket); meta != nil {
		raw := meta.Get([]byte("format"))
		if len(raw) != 4 || tx.Bucket(recordsBucket) == nil || tx.Bucket(expiryBucket) == nil {
			return damaged(s.path, errors.New("it holds no records of this program"))
		}
		if found := binary.BigEndian.Uint32(raw); found > format {
			return fmt.Errorf("the store's file %s was written by a newer version of this program (format %d, this version knows %d): update it", s.path, found, format)
		}
		return errUnchanged
	}
	if name, _ := tx.Cursor().First(); name != nil {
		return damaged(s.path, errors.New("it is a database of another program"))
	}
	for _, name := range [][]byte{recordsBucket, expiryBucket, metaBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(metaBucket).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, format))
}

package bearer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fileGap is the least time between two looks at a file of keys.
	fileGap = 2 * time.Second
	// maxKeyFile bounds it, in bytes.
	maxKeyFile = 4 << 20
)

// watchedFile notices that a file has changed, when it is asked, at most every
// fileGap.
type watchedFile struct {
	path string
	now  func() time.Time

	mu      sync.Mutex // held while one caller looks at the file
	checked atomic.Int64
	state   fileState
}

// fileState tells one version of a file from another.
type fileState struct {
	info   os.FileInfo
	failed string // why it could not be read
}

// due reports whether it is time to look, to one caller at a time, who has to
// call release.
func (f *watchedFile) due() bool {
	now := f.now().UnixNano()
	if now-f.checked.Load() < int64(fileGap) || !f.mu.TryLock() {
		return false
	}
	f.checked.Store(now)
	return true
}

func (f *watchedFile) release() { f.mu.Unlock() }

// changed returns the content if the file is another one than the last time, nil
// if it is not. A failure is told once.
func (f *watchedFile) changed() ([]byte, error) {
	info, err := os.Stat(f.path)
	if err == nil && f.state.info != nil && f.state.failed == "" &&
		os.SameFile(info, f.state.info) && info.ModTime().Equal(f.state.info.ModTime()) && info.Size() == f.state.info.Size() {
		return nil, nil
	}
	data, err := f.read()
	if err == nil {
		return data, nil
	}
	if err.Error() == f.state.failed {
		return nil, nil
	}
	f.state.failed = err.Error()
	return nil, err
}

// read returns the content and notes which version it is.
func (f *watchedFile) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", f.path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, errors.New(f.path + " is larger than 4 MiB")
	}
	f.checked.Store(f.now().UnixNano())
	f.state = fileState{info: info}
	return data, nil
}

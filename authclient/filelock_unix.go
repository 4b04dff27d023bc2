//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package authclient

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks the file against other processes, until it is closed.
func tryLock(f *os.File) (locked bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}

//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package authclient

import (
	"errors"
	"os"
)

// tryLock fails: without a lock two processes would spend one refresh token.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

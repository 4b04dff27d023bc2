package store

import (
	"errors"
	"fmt"
)

const (
	// MaxKey is the greatest length of a key, in bytes.
	MaxKey = 512
	// MaxValue is the greatest length of a value, in bytes.
	MaxValue = 256 << 10
)

var (
	// ErrKey is returned for a key that CheckKey refuses.
	ErrKey = errors.New("store: not a valid key")
	// ErrTooLarge is returned for a value that CheckValue refuses.
	ErrTooLarge = errors.New("store: the value is too large")
)

// CheckKey returns an ErrKey unless the key is 1 to MaxKey characters of
// printable ASCII, space included. Backends call it first.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrKey)
	}
	return CheckPrefix(key)
}

// CheckPrefix is CheckKey for the prefix of Scan, which may be empty.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrKey, len(prefix), MaxKey)
	}
	for i := range len(prefix) {
		if prefix[i] < ' ' || prefix[i] > '~' {
			return fmt.Errorf("%w: byte %d is not printable ASCII", ErrKey, i)
		}
	}
	return nil
}

// CheckValue returns an ErrTooLarge for more than MaxValue bytes.
func CheckValue(value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrTooLarge, len(value), MaxValue)
	}
	return nil
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

const page = 4096

// syncsPerSecond writes a page and waits for the disk, again and again, in a
// file that does not grow, as a database does.
func syncsPerSecond(dir string, life time.Duration) (perSecond float64, err error) {
	file, err := os.OpenFile(filepath.Join(dir, "fsync"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	const pages = 256
	if _, err := file.Write(make([]byte, pages*page)); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	n, start := 0, time.Now()
	for time.Since(start) < life {
		if _, err := file.WriteAt(make([]byte, page), int64(n%pages)*page); err != nil {
			return 0, err
		}
		if err := dataSync(file); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

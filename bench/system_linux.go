package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns how long all threads of a process, also those that are over,
// have run: what is in utime and stime of /proc/<pid>/stat, but in nanoseconds.
// The clock's number is that of clock_getcpuclockid(3).
func cpuTime(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil { //nolint:gosec // pids have 22 bits
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// dataSync waits until what was written is on the disk.
func dataSync(file *os.File) error { return unix.Fdatasync(int(file.Fd())) } //nolint:gosec // a small number

// residentOf is the memory of a process in RAM, in bytes.
func residentOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0, err
	}
	return pages * int64(os.Getpagesize()), nil
}

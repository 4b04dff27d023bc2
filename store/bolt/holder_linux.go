package bolt

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// holderOf returns the process that has locked the file, 0 if it cannot tell:
// a process of another container or user may be invisible.
func holderOf(path string) (pid int, name string) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, ""
	}
	if pid = lockedBy(info); pid == 0 {
		pid = openedBy(info)
	}
	if pid == 0 {
		return 0, ""
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return pid, strings.TrimSpace(string(comm))
}

// lockedBy reads /proc/locks, whose lines look like
//
//	1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
//
// with the pid, and the device's numbers in hexadecimal before the inode.
func lockedBy(info os.FileInfo) int {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	major := (stat.Dev>>8)&0xfff | (stat.Dev>>32)&^0xfff
	minor := stat.Dev&0xff | (stat.Dev>>12)&^0xff
	want := fmt.Sprintf("%02x:%02x:%d", major, minor&0xffffffff, stat.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != want {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// openedBy looks for another process that has the file open.
func openedBy(info os.FileInfo) int {
	names, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, name := range names {
		pid, err := strconv.Atoi(strings.Split(name, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
			return pid
		}
	}
	return 0
}

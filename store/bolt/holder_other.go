//go:build !linux

package bolt

// holderOf cannot tell on this system.
func holderOf(string) (pid int, name string) { return 0, "" }

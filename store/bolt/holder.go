package bolt

import (
	"fmt"
	"os"
)

// holder says in a sentence who is likely to have the file open.
func holder(path string) string {
	pid, name := holderOf(path)
	switch {
	case pid == os.Getpid():
		return "this process has it open already; give each store a file of its own"
	case pid != 0 && name != "":
		return fmt.Sprintf("process %d (%s) has it open; stop that process, or give this one another file", pid, name)
	case pid != 0:
		return fmt.Sprintf("process %d has it open; stop that process, or give this one another file", pid)
	}
	return "another process has it open, most likely a second Caddy with the same configuration; stop it, or give this one another file"
}

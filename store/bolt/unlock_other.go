//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package bolt

import "os"

// unlock leaves it to the file's closing.
func unlock(*os.File) {}

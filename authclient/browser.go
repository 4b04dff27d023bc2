package authclient

import (
	"context"
	"os/exec"
	"runtime"
)

// openBrowser opens the URL with the command of the system. The URL is one
// argument and begins with its scheme, so that it is not taken for an option.
func openBrowser(ctx context.Context, u string) error {
	name, args := "xdg-open", []string{u}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", u}
	}
	return exec.CommandContext(ctx, name, args...).Run()
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// profileLoad records a CPU profile of Caddy under the load of a variant, if
// profiles are wanted, in <dir>/<name>.prof.
func (b *bench) profileLoad(ctx context.Context, c *caddy, name string, v variant) error {
	if b.profile <= 0 {
		return nil
	}
	file, err := os.Create(filepath.Join(b.dir, strings.NewReplacer("/", "-", " ", "-", ",", "", ":", "").Replace(name)+".prof"))
	if err != nil {
		return err
	}
	defer file.Close()
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.admin, max(1, int(b.profile.Seconds())))
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(file, resp.Body)
			return err
		}()
	}()
	for {
		select {
		case err := <-done:
			return err
		default:
			if _, err := b.slice(ctx, v); err != nil {
				return err
			}
		}
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// metadata measures documents beside the same bytes from Caddy's respond.
func (b *bench) metadata(ctx context.Context, _ func(string) bool) error {
	addr, plain := freeAddr(), freeAddr()
	const resource, issuer = "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"
	broker := b.brokerSite(addr, "\t\tresource /mcp {\n\t\t\tscopes mcp:read\n\t\t}\n", "respond hello")
	start := func(name, sites string) (*caddy, error) {
		return b.startCaddy(ctx, name, "\tmcp_auth {\n\t\tstore memory\n\t}\n", sites, addr)
	}
	first, err := start("metadata-once", broker)
	if err != nil {
		return err
	}
	documents := make(map[string]string)
	for _, path := range []string{resource, issuer} {
		if documents[path], err = fetch(ctx, "http://"+addr+path); err != nil {
			first.stop()
			return err
		}
	}
	first.stop()
	c, err := start("metadata", broker+fmt.Sprintf("http://%s {\n\trespond %s `%s`\n\trespond %s `%s`\n}\n", plain, resource, documents[resource], issuer, documents[issuer]))
	if err != nil {
		return err
	}
	defer c.stop()
	var rows []row
	for _, d := range []struct{ name, path string }{{"protected resource", resource}, {"authorization server", issuer}} {
		v := func(name, addr string) variant {
			return variant{name: name, pid: c.pid(), load: repeat(addr, clients, 200, get(addr, d.path, "Accept: application/json\r\n"))}
		}
		base, measured := v("respond", plain), v(d.name, addr)
		got, err := b.compare(ctx, base, measured)
		if err != nil {
			return err
		}
		if err := b.profileLoad(ctx, c, "metadata-"+d.name, measured); err != nil {
			return err
		}
		base.load.close()
		measured.load.close()
		rows = append(rows, row{measurement: got[1], rate: target{atLeast: 0.9}})
	}
	printTable("Metadata documents", "Caddy's respond with the same document", rows...)
	return nil
}

func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}

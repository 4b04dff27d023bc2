package proxyprovider

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRelayCodeCodec(t *testing.T) {
	for name, code := range map[string]*relayCode{
		"full": {redirect: digest{1}, redirectOmitted: true, challenge: digest{2}, challenged: true, upstream: "code"},
		"bare": {upstream: "c"},
	} {
		b := code.encode()
		got, err := decodeRelayCode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(code, got, cmp.AllowUnexported(relayCode{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := decodeRelayCode(b[:len(b)-len(code.upstream)]); err == nil {
			t.Errorf("%s: without the upstream's code it is read", name)
		}
	}
}

func TestSealedClientCodec(t *testing.T) {
	for name, client := range map[string]*sealedClient{
		"direct":  {upstreamID: "up-1", method: "none", redirectURIs: []string{"https://client.example/cb"}},
		"basic":   {upstreamID: "up-1", secret: "s", method: "client_secret_basic", anyMethod: true, redirectURIs: []string{"https://client.example/cb"}},
		"post":    {upstreamID: "up-1", secret: "s", method: "client_secret_post", anyMethod: true, redirectURIs: []string{"https://client.example/cb"}},
		"relayed": {upstreamID: "up-1", method: "none", redirectURIs: []string{"https://client.example/cb"}, callback: hashCallback("https://mcp.example.com/mcp-auth/callback")},
	} {
		b := client.encode()
		got, err := decodeSealedClient(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(client, got, cmp.AllowUnexported(sealedClient{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for i := range b {
			if _, err := decodeSealedClient(b[:i]); err == nil {
				t.Errorf("%s: %d bytes of %d are a client", name, i, len(b))
			}
		}
	}
}

func FuzzDecodeRelayCode(f *testing.F) {
	f.Add((&relayCode{upstream: "code", challenged: true}).encode())
	f.Add([]byte{relayCodeFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		code, err := decodeRelayCode(b)
		if err != nil {
			return
		}
		if code.upstream == "" || !bytes.Equal(code.encode(), b) {
			t.Errorf("%x becomes %x", b, code.encode())
		}
	})
}

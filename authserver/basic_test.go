package authserver

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the header, the readings are few and clean; what a client encodes
// by the RFC is read back, and what it sends raw is among the readings.
func FuzzBasicCredentials(f *testing.F) {
	f.Add("Basic YTpi", "id", "secret")
	f.Add("basic  YTpi", "https://app.example.com/client.json", "p:q")
	f.Add("Basic YTpi=", "a b", "100%")
	f.Add("Basic "+strings.Repeat("A", maxBasic), "a+b", "%2B")
	f.Add("Bearer YTpi", "%", "%zz")
	f.Fuzz(func(t *testing.T, header, id, secret string) {
		readings, ok := basicCredentials(header)
		if ok != (len(readings) > 0) || len(readings) > 2 {
			t.Fatalf("%v %v", ok, readings)
		}
		for _, c := range readings {
			if c.clientID == "" || hasControl(c.clientID) || hasControl(c.secret) || !c.basic {
				t.Fatalf("%+v", c)
			}
		}
		if id == "" || hasControl(id+secret) || !utf8.ValidString(id) || !utf8.ValidString(secret) || len(id)+len(secret) > 2048 {
			return
		}
		encode := func(id, secret string) string {
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
		}
		want := credentials{clientID: id, secret: secret, basic: true}
		readings, ok = basicCredentials(encode(url.QueryEscape(id), url.QueryEscape(secret)))
		if !ok || readings[0] != want {
			t.Fatalf("encoded: %+v, want %+v", readings, want)
		}
		if strings.Contains(id, ":") {
			return
		}
		// Unless decoding turns it into what no credential may hold.
		if readings, ok := basicCredentials(encode(id, secret)); ok && !slices.Contains(readings, want) {
			t.Fatalf("raw: %+v lack %+v", readings, want)
		}
	})
}

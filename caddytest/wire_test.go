package caddytest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// wireSite is a site over TLS in resource-server mode. /mcp is guarded, and all
// else is not. %s are certificate and key, the issuer, the settings of the
// resource, and the server behind.
const wireSite = `
https://localhost:{PORT} {
	tls %s %s
	mcp_auth https://localhost:{PORT} {
		authorization_server %s {
			verify jwt
		}
		resource /mcp {
			scopes mcp:read
			%s
		}
	}
	reverse_proxy %s
}
`

// wire is a client of one version of HTTP.
type wire struct {
	name   string
	client *http.Client
	origin string
	token  string
}

// loadWires loads wireSite in front of backend and returns a client for each
// version of HTTP, which have a token of alice.
func loadWires(t *testing.T, settings, backend string) (*caddyInstance, *scriptedIDP, []*wire) {
	t.Helper()
	idp := newScriptedIDP(t)
	cert, key, roots := localCertificate(t)
	c := loadCaddy(t, fmt.Sprintf(wireSite, cert, key, idp.URL, settings, backend))
	origin := fmt.Sprintf("https://localhost:%d", c.Port)
	token := idp.token(map[string]any{"aud": origin + "/mcp"})

	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	one := &http.Transport{TLSClientConfig: config.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, ExpectContinueTimeout: 5 * time.Second}
	two := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}
	three := &http3.Transport{TLSClientConfig: config.Clone()}
	t.Cleanup(func() {
		one.CloseIdleConnections()
		two.CloseIdleConnections()
		if err := three.Close(); err != nil {
			t.Error(err)
		}
	})
	wires := []*wire{
		{"HTTP/1.1", &http.Client{Transport: one, Timeout: time.Minute}, origin, token},
		{"HTTP/2.0", &http.Client{Transport: two, Timeout: time.Minute}, origin, token},
		{"HTTP/3.0", &http.Client{Transport: three, Timeout: time.Minute}, origin, token},
	}
	return c, idp, wires
}

// localCertificate writes a certificate for localhost and its key into files.
func localCertificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: privateDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return cert, key, roots
}

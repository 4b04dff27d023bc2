//go:build unix

package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store/redis"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

// TestTLS: a server's certificate is checked.
func TestTLS(t *testing.T) {
	certFile, keyFile, roots := certificate(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	plain := storetest.StartRedis(t, "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no")
	rows := []struct {
		name string
		o    redis.Options
		ok   bool
	}{
		{"a trusted certificate", redis.Options{Addresses: []string{address}, TLS: &tls.Config{RootCAs: roots}}, true},
		{"by URL, with trust from the options", redis.Options{Addresses: []string{"rediss://" + address}, TLS: &tls.Config{RootCAs: roots}}, true},
		{"an unknown certificate", redis.Options{Addresses: []string{address}, TLS: &tls.Config{}}, false},
		{"an unknown certificate, by URL", redis.Options{Addresses: []string{"rediss://" + address}}, false},
		{"a certificate for another name", redis.Options{Addresses: []string{address}, TLS: &tls.Config{RootCAs: roots, ServerName: "other.example.com"}}, false},
		{"TLS on the plain port", redis.Options{Addresses: []string{plain.Address}, TLS: &tls.Config{RootCAs: roots}}, false},
		{"none on the TLS port", redis.Options{Addresses: []string{address}}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, err := redis.Open(t.Context(), row.o)
			if (err == nil) != row.ok {
				t.Fatalf("Open: %v", err)
			}
			if err != nil {
				return
			}
			if err := s.Put(t.Context(), "a", []byte("1"), 0); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// certificate makes one for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret), roots
}

package caddytest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestTransportKeys: private_key_jwt signs for the issuer alone, and dpop binds
// tokens to a key.
func TestTransportKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := newRemote(t)
	c := newCaddy(t)
	path := filepath.Join(c.dir, "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	var assertion, proof string
	r.token = func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		assertion, proof = req.Form.Get("client_assertion"), req.Header.Get("Dpop")
		r.valid["bound-1"] = ""
		writeJSON(w, 200, map[string]any{"access_token": "bound-1", "token_type": "DPoP", "expires_in": 60})
	}
	settings := fmt.Sprintf("authorization_server %s\nprivate_key_jwt {\nclient_id machine\nkey {file.%s}\ndpop\n}\n", r.URL, path)
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, settings)); err != nil {
		t.Fatal(err)
	}
	c.send("GET", "/mcp", nil, "") // this remote knows no DPoP scheme
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(assertion, claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil }, jwt.WithAudience(r.URL), jwt.WithIssuer("machine")); err != nil {
		t.Errorf("assertion: %v", err)
	}
	requests := r.take()
	last := requests[len(requests)-1]
	if proof == "" || last.Header.Get("Authorization") != "DPoP bound-1" || last.Header.Get("Dpop") == "" {
		t.Errorf("proof %q at the token endpoint, at the server %v", proof, last.Header)
	}
	if strings.Contains(c.log(), "BEGIN PRIVATE KEY") || strings.Contains(c.log(), assertion) {
		t.Error("a secret is in the log")
	}
}

// TestTransportOtherIssuer: a secret goes to the issuer of the configuration,
// also when the MCP server names another one.
func TestTransportOtherIssuer(t *testing.T) {
	r, thief := newRemote(t), newRemote(t)
	c := proxyTo(t, r, strings.Replace(r.machineCredentials(), r.URL, thief.URL, 1))
	resp, body := c.send("GET", "/mcp", nil, "")
	if resp.StatusCode != 502 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if forms := append(r.takeForms(), thief.takeForms()...); len(forms) != 0 {
		t.Errorf("a secret was sent: %v", forms)
	}
}

// TestTransportOwnCertificates: metadata and tokens of a server with a
// certificate of its own are fetched with the transport's trust.
func TestTransportOwnCertificates(t *testing.T) {
	r := newRemote(t)
	tls := httptest.NewTLSServer(r.Config.Handler)
	t.Cleanup(tls.Close)
	r.URL = tls.URL
	c := newCaddy(t)
	path := filepath.Join(c.dir, "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := "tls_trust_pool file {\npem_file " + path + "\n}\n"
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, tls.URL, r.machineCredentials()+trust)); err != nil {
		t.Fatal(err)
	}
	if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, tls.URL, r.machineCredentials())); err != nil {
		t.Fatal(err)
	}
	if resp, _ := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 502 {
		t.Errorf("with a certificate that nobody trusts: %d", resp.StatusCode)
	}
}

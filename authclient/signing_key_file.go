package authclient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// OpenSigningKey reads the private key in the file, which ParseSigningKey
// describes. If the file does not exist it is written, with a new ECDSA key on
// P-256, readable by its owner only. A file that others may read is an error.
// Several processes that begin at once end up with the same key.
func OpenSigningKey(path string) (SigningKey, error) {
	key, err := readSigningKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := writeSigningKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return SigningKey{}, fmt.Errorf("the new private key cannot be kept: %w", err)
	}
	return readSigningKey(path)
}

func readSigningKey(path string) (SigningKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return SigningKey{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return SigningKey{}, err
	}
	if !info.Mode().IsRegular() {
		return SigningKey{}, fmt.Errorf("%s is not a file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return SigningKey{}, fmt.Errorf("%s holds a private key and can be read by others: run chmod 600 on it, or delete it if somebody may have read it", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return SigningKey{}, err
	}
	key, err := ParseSigningKey(data)
	if err != nil {
		return SigningKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// writeSigningKey makes the file unless it exists, whole from the first moment.
func writeSigningKey(path string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path) // unlike Rename, never over another one
}

package seal

// Secrets returns 32 bytes for each key of the ring, in its order, bound to
// purpose and issuer. They are for keys of another kind than a Sealer's, for
// example of signatures, that nodes with the same ring have to agree on.
func (r *Ring) Secrets(purpose Purpose, issuer string) [][KeySize]byte {
	secrets := make([][KeySize]byte, 0, len(r.keys))
	for _, k := range r.keys {
		secrets = append(secrets, [KeySize]byte(k.derive("secret", KeySize, string(purpose), issuer)))
	}
	return secrets
}

package authclient

// KeptNonces is how many nonces are kept.
func (d *DPoP) KeptNonces() int {
	d.nonces.mu.Lock()
	defer d.nonces.mu.Unlock()
	return len(d.nonces.byOrigin)
}

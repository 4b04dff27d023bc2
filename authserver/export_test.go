package authserver

// Parse reads the body of a document that was fetched from the URL.
func (d *Documents) Parse(clientID string, body []byte) (*Document, error) {
	if err := d.Check(clientID); err != nil {
		return nil, err
	}
	return d.parse(clientID, body)
}

package bolt

// Count returns how many records and index entries the file holds.
func Count(s *Store) (n int) {
	_ = s.view(func(r records) error {
		for c, k := r.records.Cursor(), []byte(nil); ; n++ {
			if n == 0 {
				k, _ = c.First()
			} else {
				k, _ = c.Next()
			}
			if k == nil {
				break
			}
		}
		n += r.index().Inspect().KeyN
		return nil
	})
	return n
}

// Commits returns how many transactions have been committed.
func Commits(s *Store) (n int) {
	_ = s.view(func(r records) error { n = r.tx.ID(); return nil })
	return n
}

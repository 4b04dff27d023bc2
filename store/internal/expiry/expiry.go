// Package expiry counts the life of records in milliseconds since 1970, 0 for
// those that have no end.
package expiry

import "time"

// At returns when a record written now is over, 0 for a ttl of 0.
func At(now time.Time, ttl time.Duration) int64 {
	if ttl == 0 {
		return 0
	}
	// Rounded up, so that a short ttl is not none.
	return max(1, now.Add(ttl).Add(time.Millisecond-1).UnixMilli())
}

// Over reports whether the record is over.
func Over(at int64, now time.Time) bool { return at != 0 && now.UnixMilli() >= at }

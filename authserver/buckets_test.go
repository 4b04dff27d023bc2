package authserver

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// Memory stays bounded under a flood of addresses, and what is in use stays.
func TestBucketsAreBounded(t *testing.T) {
	limit := RateLimit{Count: 2, Window: time.Minute}
	now := time.Unix(1_800_000_000, 0)
	s := newBucketSet(requestBuckets)
	inUse := bucketKey{network: netip.MustParseAddr("192.0.2.1")}
	s.take(inUse, limit, now)
	s.take(inUse, limit, now)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range uint32(10 * requestBuckets) {
		var address [16]byte
		address[0] = 0x20
		binary.BigEndian.PutUint32(address[1:], i)
		s.take(bucketKey{network: netip.AddrFrom16(address)}, limit, now)
		if i%1000 == 0 && !s.take(inUse, limit, now).exceeded {
			t.Fatal("a bucket in use was forgotten")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := s.len(); got != requestBuckets {
		t.Errorf("%d buckets, want %d", got, requestBuckets)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1024*requestBuckets {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if requestBuckets+failureBuckets+hardBuckets != 64<<10 {
		t.Error("not 64k in all")
	}
}

// A spent address makes no further buckets, whatever client ids it sends.
func TestSpentAddressMakesNoBuckets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := newLimiter(Config{Now: func() time.Time { return now }, ClientIP: remoteHost})
	r := httptest.NewRequest("POST", tokenPath, nil)
	for i := range 5000 {
		_ = l.countFailure(make(http.Header), r, tokenPath, strconv.Itoa(i))
	}
	if got := l.failures.len(); got != 1001 {
		t.Errorf("%d buckets, want one for the address and 1000 for its clients", got)
	}
}

func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1":              "192.0.2.1",
		"::ffff:192.0.2.1":       "192.0.2.1",
		"2001:db8:1:1ff::2":      "2001:db8:1:100::",
		"2001:db8:1:1ff::2%eth0": "2001:db8:1:100::",
	} {
		if got := network(address); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s", address, got)
		}
	}
	if got := network("nonsense"); got.IsValid() {
		t.Errorf("nonsense: %s", got)
	}
}

// len returns how many buckets there are.
func (s *bucketSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

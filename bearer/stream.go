package bearer

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// sweepInterval is how often the requests under way are looked through: with
	// the age that an answer of the verifier may have, it is the time in which a
	// revoked token ends them.
	sweepInterval = time.Second
	// sweepTime bounds the questions to the verifier in one sweep. Who is not
	// reached comes sooner another time, since the order is random.
	sweepTime = 5 * time.Second
	// sweepers is how many tokens are checked at once.
	sweepers = 16
	// unjudged is how long a request may go on while its token cannot be judged,
	// as SECURITY §6 has it.
	unjudged = 30 * time.Second

	streamShards = 8
)

// streams are the admitted requests that are under way. They end when their
// token does: at its expiry, and when the verifier, asked again, refuses it. They
// also end when a new configuration does not admit them.
//
// There is no goroutine but while a sweep runs: a timer exists as long as there
// are requests. So requests that outlive a configuration are still looked after,
// and nothing is left when the last one is gone.
type streams struct {
	guard     *Guard
	successor Successor // nil if there is never one
	now       func() time.Time
	logger    *slog.Logger
	shards    [streamShards]streamShard
	// armed tells that a sweep will come.
	armed atomic.Bool
}

// streamShard is a part of the list, so that cores do not wait for each other.
type streamShard struct {
	mu    sync.Mutex
	first *stream
	_     [48]byte // a cache line each
}

// stream is one request under way.
type stream struct {
	shard          *streamShard
	next, previous *stream
	removed        bool

	admission
	info *oauth.TokenInfo
	// grace is how long the request may go on after the token has expired.
	grace time.Duration
	// connection is the request's alone; nil if cancel is to be used, and reader, if
	// that is not nil, to stop the reading of the body.
	connection *connection
	cancel     context.CancelCauseFunc
	reader     *http.ResponseController
	// ended is why the request was ended, nil if it was not.
	ended atomic.Pointer[oauth.Error]

	// judged is when the token was last known to be good, in ns since 1970, 0 at
	// first; of the sweep alone.
	judged int64
}

// admission is what was admitted where; it is judged once for all its requests.
type admission struct {
	token    string
	resource *guardedResource
}

// add begins to look after s.
func (l *streams) add(s *stream) {
	s.shard = &l.shards[rand.Uint32N(streamShards)] //nolint:gosec // spreads load, no secret
	s.shard.mu.Lock()
	s.next = s.shard.first
	if s.next != nil {
		s.next.previous = s
	}
	s.shard.first = s
	s.shard.mu.Unlock()
	l.arm()
}

// arm makes sure that a sweep will come.
func (l *streams) arm() {
	if !l.armed.Load() && l.armed.CompareAndSwap(false, true) {
		time.AfterFunc(sweepInterval, l.sweep)
	}
}

// remove ends what add began.
func (s *stream) remove() {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.previous != nil {
		s.previous.next = s.next
	} else {
		s.shard.first = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	}
	s.next, s.previous = nil, nil
	s.removed = true
}

// end cancels the request, once, if it is still under way.
func (s *stream) end(why *oauth.Error) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	switch {
	case s.removed: // the connection may have its next request by now
	case !s.ended.CompareAndSwap(nil, why):
	case s.connection != nil:
		s.connection.end(why)
	default:
		s.cancel(why)
		if s.reader != nil {
			_ = s.reader.SetReadDeadline(time.Unix(1, 0)) // best effort: the writer may not have it
		}
	}
}

// sweep looks through all requests, and comes again while there are some.
func (l *streams) sweep() {
	live, admissions := l.look(l.now())
	l.judgeAll(admissions)
	if live {
		time.AfterFunc(sweepInterval, l.sweep)
		return
	}
	l.armed.Store(false)
	if l.any() { // came after we looked, and saw a sweep coming
		l.arm()
	}
}

func (l *streams) any() bool {
	for i := range l.shards {
		shard := &l.shards[i]
		shard.mu.Lock()
		first := shard.first
		shard.mu.Unlock()
		if first != nil {
			return true
		}
	}
	return false
}

// look ends the requests whose time is over and returns the others that run for
// longer than a moment, by what was admitted.
func (l *streams) look(now time.Time) (live bool, admissions map[admission][]*stream) {
	var over []*stream
	for i := range l.shards {
		shard := &l.shards[i]
		shard.mu.Lock()
		for s := shard.first; s != nil; s = s.next {
			live = true
			switch {
			case s.ended.Load() != nil:
			case s.expired(now):
				if !now.Before(s.info.ExpiresAt.Add(s.grace)) {
					over = append(over, s)
				}
			case s.judged == 0: // was judged when it began, a moment ago
				s.judged = now.UnixNano()
			default:
				if admissions == nil {
					admissions = make(map[admission][]*stream)
				}
				admissions[s.admission] = append(admissions[s.admission], s)
			}
		}
		shard.mu.Unlock()
	}
	for _, s := range over {
		l.finish(s, oauth.ErrInvalidToken.Describe(expired))
	}
	return live, admissions
}

// expired reports whether the token's own time is over. What the verifier says
// of it means nothing any more.
func (s *stream) expired(now time.Time) bool {
	return !s.info.ExpiresAt.IsZero() && !now.Before(s.info.ExpiresAt)
}

// judgeAll judges all admissions, once each.
func (l *streams) judgeAll(admissions map[admission][]*stream) {
	if len(admissions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	list := slices.Collect(maps.Keys(admissions))
	var reached atomic.Int64
	work := func() {
		for i := reached.Add(1); i <= int64(len(list)) && ctx.Err() == nil; i = reached.Add(1) {
			l.judge(ctx, list[i-1], admissions[list[i-1]])
		}
	}
	var others sync.WaitGroup
	for range min(len(list), sweepers) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// judge ends the requests that would not be admitted any more.
func (l *streams) judge(ctx context.Context, a admission, of []*stream) {
	err := l.ask(ctx, a)
	now := l.now()
	for _, s := range of {
		switch {
		case err == nil:
			s.judged = now.UnixNano()
		case s.expired(now): // it may have been refused for that alone
		case isDefinite(err):
			l.finish(s, err)
		case now.UnixNano()-s.judged >= int64(unjudged):
			l.finish(s, err)
		}
	}
}

// isDefinite tells a refusal from trouble.
func isDefinite(err *oauth.Error) bool {
	status := err.HTTPStatus()
	return status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// ask asks the guard that decides now. A panic of its verifier is not to end the
// process here, either.
func (l *streams) ask(ctx context.Context, a admission) (refused *oauth.Error) {
	defer func() {
		if p := recover(); p != nil {
			refused = oauth.ErrServerError.Describe("Internal Server Error").Because(fmt.Errorf("the verifier panicked: %v", p))
			l.logger.Error("the verifier panicked", slog.Any("panic", p))
		}
	}()
	return l.judgeAdmission(ctx, a)
}

func (l *streams) finish(s *stream, why *oauth.Error) {
	l.logger.LogAttrs(context.Background(), slog.LevelDebug, "request ended with its token", slog.String("reason", why.Error()))
	s.end(why)
}

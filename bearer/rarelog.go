package bearer

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// complaintGap is the least time between two lines of a rareLog.
const complaintGap = time.Minute

// rareLog writes one line a minute about something that goes wrong with every
// request.
type rareLog struct {
	now    func() time.Time
	logger *slog.Logger

	mu   sync.Mutex
	last time.Time
}

func (l *rareLog) error(message string, err error, attrs ...any) {
	l.write(slog.LevelError, message, err, attrs)
}

func (l *rareLog) warn(message string, err error, attrs ...any) {
	l.write(slog.LevelWarn, message, err, attrs)
}

func (l *rareLog) write(level slog.Level, message string, err error, attrs []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if since(now, l.last) < complaintGap {
		return
	}
	l.last = now
	l.logger.Log(context.Background(), level, message, append(attrs, slog.Any("error", err))...)
}

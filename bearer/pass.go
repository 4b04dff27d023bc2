package bearer

import (
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// Pass passes an admitted request on to next and looks after the answer: it
// binds MCP sessions to the user, leaves out of lists what the token can never
// call if the resource says so, and ends the request together with its token.
// w is the writer that Check got.
//
// It returns what next returns. Where it has answered itself, because the
// session is not this user's or the token has ended, that is nil.
func (g *Guard) Pass(w http.ResponseWriter, r *http.Request, d Decision, next func(http.ResponseWriter, *http.Request) error) error {
	if !d.Guarded || d.Info == nil {
		return next(w, r)
	}
	if d.Writer != nil {
		w = d.Writer
	}
	a := &answer{ResponseWriter: w, guard: g, request: r, scopes: d.asked.scopes}
	a.admission, a.info, a.grace = admission{d.asked.token, d.guarded}, d.Info, d.streamGrace()
	if d.bindsSession() {
		a.binds = true
		if refused := a.session.open(r.Header, d.asked.oddSession, a.owner()); refused != nil {
			g.logSessionRefusal(r, d.Resource, refused)
			refused.write(w, r)
			return nil
		}
	}
	if may := d.listed(); may != nil {
		a.filter = &listFilter{may: may}
		askForPlain(r.Header)
	}
	return a.pass(next)
}

// checkAnswers checks what is for Pass.
func (g *guardedResource) checkAnswers() error {
	switch {
	case g.StreamGrace < 0:
		return errors.New("stream grace is below 0; leave it out to end requests together with their token")
	case g.FilterLists && g.Policy.AllowUpgrade:
		return errors.New("lists cannot be filtered in a WebSocket; choose one of filtered lists and upgrade")
	}
	return nil
}

// asked is what of a Check is needed again.
type asked struct {
	token      string
	scopes     []string
	oddSession bool // see strip
}

// bindsSession reports whether one of the resources wants it.
func (d *Decision) bindsSession() bool {
	return !d.Resource.SessionBindingOff || d.Also != nil && !d.Also.SessionBindingOff
}

// streamGrace is what both resources allow.
func (d *Decision) streamGrace() time.Duration {
	if d.Also != nil {
		return min(d.Resource.StreamGrace, d.Also.StreamGrace)
	}
	return d.Resource.StreamGrace
}

// listed tells what may stay in lists; nil if they are not filtered.
func (d *Decision) listed() func(kind CallKind, name string) bool {
	if d.Resource.FilterLists || d.Also != nil && d.Also.FilterLists {
		return d.MayList
	}
	return nil
}

func (g *Guard) logSessionRefusal(r *http.Request, resource *Resource, refused *sessionRefusal) {
	level := slog.LevelDebug
	if refused.err != nil {
		level = slog.LevelError
	}
	ctx := r.Context()
	if !g.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("resource", resource.Identifier), slog.Int("status", refused.status)}
	if refused.err != nil {
		attrs = append(attrs, slog.String("reason", refused.err.Error()))
	}
	g.logger.LogAttrs(ctx, level, "request refused for its MCP session", attrs...)
}

package bearer

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// MiddlewareOptions configures Middleware. Its zero value works.
type MiddlewareOptions struct {
	// ForwardAccessToken leaves the Authorization header of admitted requests
	// in place. The handler must not use the token towards anybody else.
	ForwardAccessToken bool
}

// Middleware puts g in front of a handler: it serves the protected-resource
// metadata, checks every request to a resource, and passes on the rest. Behind
// it TokenInfoFromContext tells who is asking. Identity headers of the client
// are removed from every request. What Pass does is done to the answers.
func Middleware(g *Guard, options MiddlewareOptions) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if metadata := g.Metadata(r.URL.Path); metadata != nil {
				metadata.ServeHTTP(w, r)
				return
			}
			decision, ok := g.Check(w, r, nil)
			if !ok {
				return
			}
			if decision.Guarded {
				if !options.ForwardAccessToken {
					RemoveAuthorization(r)
				}
				r = r.WithContext(ContextWithTokenInfo(r.Context(), decision.Info))
			}
			_ = g.Pass(w, r, decision, func(w http.ResponseWriter, r *http.Request) error {
				next.ServeHTTP(w, r)
				return nil
			})
		})
	}
}

// RequireBearerAuthOptions are the options of the SDK's requireBearerAuth.
type RequireBearerAuthOptions struct {
	// Verifier checks the tokens; required. What a CacheableVerifier says is
	// remembered, in 64 MiB at most; a CachedVerifier has its own memory.
	Verifier Verifier
	// RequiredScopes must all be granted. They are named in every challenge.
	RequiredScopes []string
	// ResourceMetadataURL is named in every challenge, if set.
	ResourceMetadataURL string
	// ExpectedResource is the resource that tokens must be issued for. Empty
	// leaves the audience to the verifier.
	ExpectedResource string
	// AllowNoExpiry accepts tokens that do not tell when they expire.
	AllowNoExpiry bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// RequireBearerAuth asks for a bearer token on every request, like the SDK's
// requireBearerAuth. It knows nothing of paths, origins and metadata, and
// passes the Authorization header on: Guard does more. Unlike the SDK it checks
// the expiry before the scopes, so that clients with an expired token refresh
// it. It panics if there is no Verifier.
func RequireBearerAuth(options RequireBearerAuthOptions) func(http.Handler) http.Handler {
	if options.Verifier == nil {
		panic("bearer: RequireBearerAuth needs a Verifier")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	var err error
	if options.Verifier, err = cached(options.Verifier, nil, options.Now); err != nil {
		panic(err) // the defaults are fine
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info, refused := options.check(r)
			if refused != nil {
				safehttp.RefuseBody(w, r)
				refused.write(w, r)
				return
			}
			next.ServeHTTP(w, r.WithContext(ContextWithTokenInfo(r.Context(), info)))
		})
	}
}

func (o *RequireBearerAuthOptions) check(r *http.Request) (*oauth.TokenInfo, *refusal) {
	refuse := func(err *oauth.Error, noCredentials bool) (*oauth.TokenInfo, *refusal) {
		return nil, &refusal{err: err, noCredentials: noCredentials, scopes: o.RequiredScopes, metadataURL: o.ResourceMetadataURL}
	}
	token, err := accessToken(r.Header)
	if err != nil {
		return refuse(err, false)
	}
	if token == "" {
		return refuse(oauth.ErrInvalidToken.Describe(missingAuthorization), true)
	}
	info, _, err := verifyToken(r.Context(), o.Verifier, token, cacheKey{})
	if err != nil {
		return refuse(err, false)
	}
	if o.ExpectedResource != "" && !issuedFor(info, o.expects) {
		return refuse(oauth.ErrInvalidToken.Describe(notForThisResource), false)
	}
	if err := checkExpiry(info, o.Now(), o.AllowNoExpiry); err != nil {
		return refuse(err, false)
	}
	for _, scope := range o.RequiredScopes {
		if !slices.Contains(info.Scopes, scope) {
			return refuse(oauth.ErrInsufficientScope.Describe(insufficientScope), false)
		}
	}
	return info, nil
}

func (o *RequireBearerAuthOptions) expects(audience string) bool {
	return audience == o.ExpectedResource || oauth.SameResource(audience, o.ExpectedResource)
}

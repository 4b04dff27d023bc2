// An identity provider for tests: the npm package oidc-provider, with a login
// that needs no human. Prints {"issuer": …} on one line when it listens, and
// ends when its standard input closes.
//
// Options, as JSON in the first argument:
//   port        TCP port on 127.0.0.1; 0 or absent takes a free one
//   resource    audience of tokens for which no resource was asked
//   resources   accepted resource indicators; absent accepts all
//   accessTTL   lifetime of access tokens in seconds, 300
//   scope       scope of authorization requests that name none (RFC 6749
//               §3.3); absent refuses them with access_denied
//   user        who signs in when the request has no login_hint, "alice"
//   deny        the user refuses every request
//   iss         send RFC 9207 iss, true; false is how many providers are
//   clients     static clients, as oidc-provider's option of that name

import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import Provider, { errors } from 'oidc-provider';

const SCOPES = ['mcp:read', 'mcp:write', 'mcp:admin'];
const options = { accessTTL: 300, user: 'alice', iss: true, ...JSON.parse(process.argv[2] ?? '{}') };

// oidc-provider logs advice for operators to standard output, which is ours.
console.info = console.warn = (...args) => console.error(...args);

const configuration = {
  clients: options.clients ?? [],
  // Clients that do not say are native: loopback redirects with any port.
  clientDefaults: { application_type: 'native', grant_types: ['authorization_code', 'refresh_token'] },
  scopes: ['openid', 'offline_access', ...SCOPES],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: async () => false,
  ttl: {
    AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? options.accessTTL,
    AuthorizationCode: 60,
    Grant: 3600,
    IdToken: 300,
    Interaction: 300,
    RefreshToken: 3600,
    Session: 3600,
  },
  findAccount: async (_ctx, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, name: id, email: `${id}@example.com`, email_verified: true }),
  }),
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    registration: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (_ctx, _client, oneOf) => oneOf ?? options.resource,
      // A refresh without a resource parameter keeps the granted audience.
      useGrantedResource: async () => true,
      getResourceServerInfo: async (_ctx, resource) => {
        if (options.resources && !options.resources.includes(resource)) throw new errors.InvalidTarget();
        return {
          scope: SCOPES.join(' '),
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: options.accessTTL,
          jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
};

/** Signs in and consents in the user's place. */
async function interact(provider, req, res) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  if (options.deny) {
    await provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'the user said no' });
    return;
  }
  if (prompt.name === 'login') {
    await provider.interactionFinished(req, res, { login: { accountId: params.login_hint ?? options.user } });
    return;
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
}

/** Makes the provider one that has not heard of RFC 9207. */
function withoutIss(provider) {
  provider.use(async (ctx, next) => {
    await next();
    const location = ctx.response.get('location');
    if (location?.includes('iss=')) {
      const url = new URL(location, provider.issuer);
      url.searchParams.delete('iss');
      ctx.set('location', url.href);
    }
    if (ctx.path.startsWith('/.well-known/')) delete ctx.body?.authorization_response_iss_parameter_supported;
  });
}

/** Gives an authorization request without a scope the default one. */
function withScope(target) {
  const url = new URL(target, 'http://localhost');
  if (!options.scope || url.pathname !== '/auth' || url.searchParams.has('scope')) return target;
  url.searchParams.set('scope', options.scope);
  return url.pathname + url.search;
}

const server = createServer();
server.listen(options.port ?? 0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.on('server_error', (_ctx, error) => console.error(error));
  if (!options.iss) withoutIss(provider);
  const callback = provider.callback();
  server.on('request', (req, res) => {
    if (!req.url.startsWith('/interaction/')) {
      req.url = withScope(req.url);
      callback(req, res);
      return;
    }
    interact(provider, req, res).catch((error) => {
      console.error(error);
      res.writeHead(500).end();
    });
  });
  console.log(JSON.stringify({ issuer }));
});

process.stdin.on('end', () => process.exit(0)).resume();

// The TypeScript SDK's authorization server as its documentation shows it:
// mcpAuthRouter on Express with a provider that keeps everything in memory.
// Rate limits are off. Prints {"port": …} when it listens, and ends when its
// standard input closes.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import express from 'express';
import { InvalidGrantError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { mcpAuthRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';

const ACCESS_TTL = 3600; // seconds

const clients = new Map();
const codes = new Map();
const accessTokens = new Map();
const refreshTokens = new Map();

const provider = {
  clientsStore: {
    getClient: async (id) => clients.get(id),
    registerClient: async (client) => {
      clients.set(client.client_id, client);
      return client;
    },
  },

  // Signs the user in without asking, as the SDK's own example does.
  async authorize(client, params, res) {
    const code = randomUUID();
    codes.set(code, { clientId: client.client_id, params });
    const target = new URL(params.redirectUri);
    target.searchParams.set('code', code);
    if (params.state !== undefined) target.searchParams.set('state', params.state);
    res.redirect(target.href);
  },

  async challengeForAuthorizationCode(client, code) {
    return grantOf(codes, code, client).params.codeChallenge;
  },

  async exchangeAuthorizationCode(client, code, _verifier, redirectUri) {
    const { params } = grantOf(codes, code, client);
    if (redirectUri !== undefined && redirectUri !== params.redirectUri) throw new InvalidGrantError('redirect_uri differs');
    codes.delete(code);
    return issue(client.client_id, params.scopes ?? [], params.resource);
  },

  async exchangeRefreshToken(client, token) {
    const { scopes, resource } = grantOf(refreshTokens, token, client);
    refreshTokens.delete(token);
    return issue(client.client_id, scopes, resource);
  },

  async verifyAccessToken(token) {
    return accessTokens.get(token);
  },
};

function grantOf(map, key, client) {
  const grant = map.get(key);
  if (!grant || grant.clientId !== client.client_id) throw new InvalidGrantError('unknown');
  return grant;
}

function issue(clientId, scopes, resource) {
  const access = randomUUID();
  const refresh = randomUUID();
  accessTokens.set(access, { token: access, clientId, scopes, resource, expiresAt: Math.floor(Date.now() / 1000) + ACCESS_TTL });
  refreshTokens.set(refresh, { clientId, scopes, resource });
  return { access_token: access, token_type: 'bearer', expires_in: ACCESS_TTL, scope: scopes.join(' '), refresh_token: refresh };
}

const app = express();
const server = createServer(app);
// As Caddy's: connections stay open between the rounds of a measurement.
server.keepAliveTimeout = 5 * 60 * 1000;
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const off = { rateLimit: false };
  app.use(
    mcpAuthRouter({
      provider,
      issuerUrl: new URL(`http://127.0.0.1:${port}`),
      resourceServerUrl: new URL(`http://127.0.0.1:${port}/mcp`),
      scopesSupported: ['mcp:read'],
      authorizationOptions: off,
      tokenOptions: off,
      clientRegistrationOptions: off,
    }),
  );
  console.log(JSON.stringify({ port }));
});

process.stdin.on('end', () => process.exit(0)).resume();

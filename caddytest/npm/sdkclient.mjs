// The MCP TypeScript SDK's client, start to end: 401, metadata, registration,
// authorization, token, tools/list, tools/call, refresh, revocation.
//
// Options: url of the MCP server; user, sent as login_hint; scope.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { auth, refreshAuthorization } from '@modelcontextprotocol/sdk/client/auth.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { InvalidGrantError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { check, follow, main } from './browser.mjs';

const REDIRECT_URI = 'http://127.0.0.1:41999/callback';

/** Keeps everything in memory and signs in by itself. */
class MemoryProvider {
  constructor({ user, scope }) {
    this.user = user;
    this.scope = scope;
  }

  get redirectUrl() {
    return REDIRECT_URI;
  }

  get clientMetadata() {
    return {
      client_name: 'npm SDK client',
      redirect_uris: [REDIRECT_URI],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      ...(this.scope && { scope: this.scope }),
    };
  }

  state() {
    this.sentState = crypto.randomUUID();
    return this.sentState;
  }

  clientInformation() {
    return this.client;
  }

  saveClientInformation(client) {
    this.client = client;
  }

  tokens() {
    return this.saved;
  }

  saveTokens(tokens) {
    this.saved = tokens;
  }

  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }

  codeVerifier() {
    return this.verifier;
  }

  saveDiscoveryState(state) {
    this.discovery = state;
  }

  async redirectToAuthorization(url) {
    if (this.user) url.searchParams.set('login_hint', this.user);
    const answer = await follow(url, REDIRECT_URI);
    check(answer.searchParams.get('state') === this.sentState, 'state did not come back');
    check(!answer.searchParams.has('error'), `authorization failed: ${answer.searchParams}`);
    this.code = answer.searchParams.get('code');
    check(this.code, 'no code came back');
  }
}

async function connect(url, provider) {
  const client = new Client({ name: 'npm-sdk', version: '1.0.0' });
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (error.constructor.name !== 'UnauthorizedError') throw error;
  }
  await transport.finishAuth(provider.code);
  return connect(url, provider);
}

async function whoami(client) {
  const answer = await client.callTool({ name: 'whoami', arguments: {} });
  check(!answer.isError, `whoami failed: ${JSON.stringify(answer)}`);
  return answer.structuredContent;
}

main(async (options) => {
  const provider = new MemoryProvider(options);
  const client = await connect(options.url, provider);
  const { tools } = await client.listTools();
  const before = await whoami(client);
  const first = provider.saved;
  check(first.refresh_token, 'no refresh token was issued');

  // With a refresh token at hand the SDK refreshes instead of redirecting.
  check((await auth(provider, { serverUrl: options.url })) === 'AUTHORIZED', 'the refresh did not authorize');
  check(provider.saved.access_token !== first.access_token, 'the refresh gave the same access token');
  const after = await whoami(client);
  await client.close();

  const { authorizationServerUrl, authorizationServerMetadata, resourceMetadata } = provider.discovery;
  const revoked = await fetch(authorizationServerMetadata.revocation_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      token: provider.saved.refresh_token,
      token_type_hint: 'refresh_token',
      client_id: provider.client.client_id,
    }),
  });
  check(revoked.status === 200, `revocation answered ${revoked.status}: ${await revoked.text()}`);
  const dead = await refreshAuthorization(authorizationServerUrl, {
    metadata: authorizationServerMetadata,
    clientInformation: provider.client,
    refreshToken: provider.saved.refresh_token,
    resource: new URL(resourceMetadata.resource),
  }).catch((error) => error);
  check(dead instanceof InvalidGrantError, `a revoked refresh token gave ${dead}`);

  return {
    issuer: authorizationServerMetadata.issuer,
    resource: resourceMetadata.resource,
    clientId: provider.client.client_id,
    scope: first.scope,
    tools: tools.map((tool) => tool.name).sort(),
    before,
    after,
  };
});

// The npm package openid-client with its defaults, which check state, iss and
// PKCE: discovery, registration, authorization, token, tools/call, refresh,
// revocation.
//
// Options: url of the MCP server; issuer.

import * as client from 'openid-client';
import { check, follow, main } from './browser.mjs';
import { whoami } from './whoami.mjs';

const REDIRECT_URI = 'http://127.0.0.1:41996/callback';

main(async ({ url, issuer }) => {
  const config = await client.dynamicClientRegistration(new URL(issuer), {
    client_name: 'openid-client',
    redirect_uris: [REDIRECT_URI],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  }, client.None(), { algorithm: 'oauth2', execute: [client.allowInsecureRequests] });
  const server = config.serverMetadata();
  check(server.supportsPKCE(), 'S256 is not advertised');
  check(server.authorization_response_iss_parameter_supported, 'iss is not advertised');

  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const answer = await follow(client.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    scope: 'mcp:read',
    resource: url,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: expectedState,
  }), REDIRECT_URI);
  const tokens = await client.authorizationCodeGrant(config, answer, { pkceCodeVerifier, expectedState }, { resource: url });
  const before = await whoami(url, tokens.access_token);
  const fresh = await client.refreshTokenGrant(config, tokens.refresh_token, { resource: url });
  check(fresh.access_token !== tokens.access_token, 'the refresh gave the same access token');
  const after = await whoami(url, fresh.access_token);

  await client.tokenRevocation(config, fresh.refresh_token);
  const dead = await client.refreshTokenGrant(config, fresh.refresh_token).catch((error) => error);
  check(dead.error === 'invalid_grant', `a revoked refresh token gave ${dead.error ?? dead}`);
  return { scope: tokens.scope, before, after };
});

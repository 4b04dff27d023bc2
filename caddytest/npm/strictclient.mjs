// A client that checks everything that the RFCs tell it to, made of
// oauth4webapi: RFC 9728 and RFC 8414 discovery, RFC 7591 registration, PKCE,
// RFC 9207, token, tools/call, refresh, RFC 7009 revocation.
//
// Options: url of the MCP server; scope; user, sent as login_hint. The result
// tells how far it came: {step, error} names the step that a check refused.

import * as oauth from 'oauth4webapi';
import { check, follow, main } from './browser.mjs';
import { whoami } from './whoami.mjs';

const REDIRECT_URI = 'http://127.0.0.1:41997/callback';
const insecure = { [oauth.allowInsecureRequests]: true }; // http on loopback

/** Steps in order; each gets what the ones before it returned. */
const steps = {
  async resource({ url }) {
    const challenged = await fetch(url, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } });
    check(challenged.status === 401, `an unauthenticated request got ${challenged.status}`);
    check(challenged.headers.get('www-authenticate')?.startsWith('Bearer '), 'the 401 has no Bearer challenge');
    const id = new URL(url);
    return oauth.processResourceDiscoveryResponse(id, await oauth.resourceDiscoveryRequest(id, insecure));
  },
  async server({ resource }) {
    const issuer = new URL(resource.authorization_servers[0]);
    const response = await oauth.discoveryRequest(issuer, { ...insecure, algorithm: 'oauth2' });
    return oauth.processDiscoveryResponse(issuer, response);
  },
  async client({ server }) {
    const metadata = {
      client_name: 'strict client',
      redirect_uris: [REDIRECT_URI],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    };
    const response = await oauth.dynamicClientRegistrationRequest(server, metadata, insecure);
    return oauth.processDynamicClientRegistrationResponse(response);
  },
  async authorization({ server, client, resource, scope, user }) {
    check(server.code_challenge_methods_supported.includes('S256'), 'S256 is not advertised');
    const verifier = oauth.generateRandomCodeVerifier();
    const state = oauth.generateRandomState();
    const url = new URL(server.authorization_endpoint);
    const parameters = {
      response_type: 'code',
      client_id: client.client_id,
      redirect_uri: REDIRECT_URI,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      resource: resource.resource,
      scope: scope ?? resource.scopes_supported.join(' '),
      state,
      ...(user && { login_hint: user }),
    };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    return { verifier, state, url: await follow(url, REDIRECT_URI) };
  },
  async response({ server, client, authorization }) {
    return oauth.validateAuthResponse(server, client, authorization.url, authorization.state);
  },
  async token({ server, client, resource, authorization, response }) {
    return oauth.processAuthorizationCodeResponse(server, client, await oauth.authorizationCodeGrantRequest(
      server, client, oauth.None(), response, REDIRECT_URI, authorization.verifier,
      { ...insecure, additionalParameters: { resource: resource.resource } },
    ));
  },
  async use({ url, token }) {
    return whoami(url, token.access_token);
  },
  async refresh({ server, client, token }) {
    check(token.refresh_token, 'no refresh token was issued');
    return oauth.processRefreshTokenResponse(server, client, await oauth.refreshTokenGrantRequest(
      server, client, oauth.None(), token.refresh_token, insecure,
    ));
  },
  async useAgain({ url, refresh }) {
    return whoami(url, refresh.access_token);
  },
  async revocation({ server, client, refresh }) {
    await oauth.processRevocationResponse(await oauth.revocationRequest(
      server, client, oauth.None(), refresh.refresh_token, insecure,
    ));
  },
  async afterRevocation({ server, client, refresh }) {
    const dead = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), refresh.refresh_token, insecure)
      .then((response) => oauth.processRefreshTokenResponse(server, client, response))
      .catch((error) => error);
    check(dead.error === 'invalid_grant', `a revoked refresh token gave ${dead.error ?? dead}`);
  },
};

main(async (options) => {
  const done = { ...options };
  for (const [step, run] of Object.entries(steps)) {
    try {
      done[step] = await run(done);
    } catch (error) {
      console.error(error);
      return { step, error: error.message, scope: done.token?.scope };
    }
  }
  return { step: 'done', scope: done.token.scope, before: done.use, after: done.useAgain };
});

// A browser without a screen, and the person before it: follows redirects and
// keeps cookies, as a user agent does, presses Allow where a page asks for
// consent and signs in where one asks for a password, until it is sent to the
// client's redirect URI. Nothing has to listen there.

const MAX_HOPS = 20;
const ALICE = { username: 'alice', password: 'correct horse' };

/**
 * Follows an authorization URL.
 * @param {string|URL} start the authorization URL
 * @param {string} redirectUri where the client waits
 * @returns {Promise<URL>} the redirect URI with the authorization response
 */
export async function follow(start, redirectUri) {
  const jar = new Map();
  let url = new URL(start);
  let form; // what is posted, undefined for GET
  for (let hop = 0; hop < MAX_HOPS; hop++) {
    const cookies = jar.get(url.host) ?? new Map();
    jar.set(url.host, cookies);
    const response = await fetch(url, {
      redirect: 'manual',
      method: form ? 'POST' : 'GET',
      body: form,
      headers: {
        accept: 'text/html',
        cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; '),
      },
    });
    for (const line of response.headers.getSetCookie()) {
      const pair = line.split(';', 1)[0];
      const cut = pair.indexOf('=');
      const name = pair.slice(0, cut).trim();
      const value = pair.slice(cut + 1).trim();
      if (value === '') cookies.delete(name);
      else cookies.set(name, value);
    }
    const location = response.headers.get('location');
    const body = await response.text();
    form = undefined;
    if (response.status === 200) {
      const next = answer(body, url);
      if (next) {
        ({ url, form } = next);
        continue;
      }
    }
    if (response.status < 300 || response.status > 399 || !location) {
      throw new Error(`${url.origin}${url.pathname} answered ${response.status} instead of a redirect: ${body.slice(0, 300)}`);
    }
    url = new URL(location, url);
    if (url.href.split(/[?#]/, 1)[0] === redirectUri) return url;
  }
  throw new Error(`no redirect to ${redirectUri} after ${MAX_HOPS} hops`);
}

/**
 * Fills in the form of a page as alice would who wants to go on.
 * @returns {{url: URL, form: URLSearchParams}|undefined} undefined if there is none
 */
function answer(page, url) {
  const [, action, inner] = /<form[^>]*action="([^"]*)"[^>]*>([^]*?)<\/form>/.exec(page) ?? [];
  if (!inner) return undefined;
  const form = new URLSearchParams();
  for (const [input] of inner.matchAll(/<input[^>]*>/g)) {
    const [, name] = /name="([^"]*)"/.exec(input) ?? [];
    const [, value] = /value="([^"]*)"/.exec(input) ?? [];
    form.set(name, ALICE[name] ?? value ?? '');
  }
  if (inner.includes('name="decision" value="allow"')) form.set('decision', 'allow');
  return { url: new URL(action, url), form };
}

/** Throws unless the condition holds. */
export function check(condition, message) {
  if (!condition) throw new Error(message);
}

/**
 * Runs a program: its options are the JSON in the first argument, its result
 * is one line of JSON on standard output, and an error ends it with status 1.
 */
export async function main(program) {
  try {
    const result = await program(JSON.parse(process.argv[2] ?? '{}'));
    console.log(JSON.stringify(result));
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}

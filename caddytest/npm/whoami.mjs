// Uses an access token at an MCP server, with the TypeScript SDK's client and
// none of its OAuth.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { check } from './browser.mjs';

/**
 * Lists the tools and calls whoami.
 * @returns {Promise<object>} what the server knows of the caller
 */
export async function whoami(url, accessToken) {
  const client = new Client({ name: 'whoami', version: '1.0.0' });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { authorization: `Bearer ${accessToken}` } },
  }));
  const { tools } = await client.listTools();
  check(tools.some((tool) => tool.name === 'whoami'), 'whoami is not listed');
  const answer = await client.callTool({ name: 'whoami', arguments: {} });
  check(!answer.isError, `whoami failed: ${JSON.stringify(answer)}`);
  await client.close();
  return answer.structuredContent;
}

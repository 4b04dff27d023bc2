// The TypeScript SDK's client in a session: initialize, tools/list, tools/call,
// the event stream of GET, and the end by DELETE. It writes what it has seen.
//
// Options: url of the MCP server; token.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { url, token } = JSON.parse(process.argv[2]);
const client = new Client({ name: 'session client', version: '1.0.0' });
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
await client.connect(transport);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answer = JSON.stringify((await client.callTool({ name: tools[0], arguments: { text: 'x' } })).content);
const session = transport.sessionId;
await transport.terminateSession();
await client.close();
console.log(JSON.stringify({ tools, answer, session }));

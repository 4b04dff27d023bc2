// An MCP server of the TypeScript SDK with sessions. It writes its URL once it
// listens.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const sessions = new Map();

async function begin() {
  const server = new McpServer({ name: 'sessions', version: '1.0.0' });
  for (const name of ['read', 'delete_all']) {
    server.registerTool(name, { description: name }, async () => ({ content: [{ type: 'text', text: name }] }));
  }
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await server.connect(transport);
  return transport;
}

const http = createServer(async (req, res) => {
  const id = req.headers['mcp-session-id'];
  const transport = id === undefined ? await begin() : sessions.get(id);
  if (!transport) {
    res.writeHead(404, { 'Content-Type': 'application/json' }).end('{"error":"no such session here"}');
    return;
  }
  await transport.handleRequest(req, res);
});
http.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ url: `http://127.0.0.1:${http.address().port}` })));
process.stdin.on('end', () => process.exit(0)).resume();

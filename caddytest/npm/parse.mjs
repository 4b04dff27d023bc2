// Tells what the TypeScript SDK's server takes each of some bodies for: method,
// and name or URI, of every message.

import { JSONRPCMessageSchema } from '@modelcontextprotocol/sdk/types.js';

const read = (body) => {
  let parsed;
  try {
    parsed = JSON.parse(body);
  } catch {
    return null;
  }
  const messages = Array.isArray(parsed) ? parsed : [parsed];
  const seen = [];
  for (const message of messages) {
    const { success, data } = JSONRPCMessageSchema.safeParse(message);
    if (!success) return null;
    const params = data.params ?? {};
    const target = params.ref ?? params;
    seen.push({ method: data.method ?? '', name: target.name, uri: target.uri });
  }
  return seen;
};

console.log(JSON.stringify(JSON.parse(process.argv[2]).map(read)));

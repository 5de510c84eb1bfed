// A client of the TypeScript SDK: node client.mjs http|sse|websocket URL
// Uses what the server `everything` has, answers what it asks, and prints what it got as JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

const [kind, address] = process.argv.slice(2);
const url = new URL(address);
const transports = {
  http: () => new StreamableHTTPClientTransport(url),
  sse: () => new SSEClientTransport(url),
  websocket: () => new WebSocketClientTransport(url),
};
const capabilities = { sampling: {}, elicitation: {}, roots: {} };
const client = new Client({ name: "typescript", version: "1" }, { capabilities });
client.setRequestHandler(CreateMessageRequestSchema, async () => ({
  role: "assistant",
  model: "m",
  content: { type: "text", text: "Paris" },
}));
client.setRequestHandler(ElicitRequestSchema, async () => ({
  action: "accept",
  content: { username: "Ada", email: "a@b.example" },
}));
client.setRequestHandler(ListRootsRequestSchema, async () => ({
  roots: [{ uri: "file:///home/ada" }],
}));

const text = async (name, args, options) =>
  (await client.callTool({ name, arguments: args }, undefined, options)).content[0].text;

await client.connect(transports[kind]());
const progress = [];
const onprogress = (note) => progress.push(note.progress);
const found = {
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  prompts: (await client.listPrompts()).prompts.map((prompt) => prompt.name),
  resource: (await client.readResource({ uri: "test://static-text" })).contents[0].text,
  simple: await text("test_simple_text", {}),
  sampled: await text("test_sampling", { prompt: "?" }),
  filled: await text("test_elicitation", { message: "?" }),
  roots: await text("test_input_required_result_list_roots", {}),
  done: await text("test_tool_with_progress", {}, { onprogress }),
  progress,
};
console.log(JSON.stringify(found));
await client.close();
process.exit(0);

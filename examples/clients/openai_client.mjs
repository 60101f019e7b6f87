// openai for Node: two turns of a conversation, streamed and whole.
//
// npm install openai
// AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat node openai_client.mjs
import assert from "node:assert";
import OpenAI from "openai";

const model = process.env.AURORA_MODEL;
const client = new OpenAI({ baseURL: process.env.AURORA_BASE_URL, apiKey: "unused" });

const messages = [{ role: "user", content: "Hello" }];
for (const question of ["And then?", "Why?"]) {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 16 });
  messages.push(answer.choices[0].message, { role: "user", content: question });
}

const stream = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 16,
  stream: true,
  stream_options: { include_usage: true },
});
let usage;
for await (const chunk of stream) usage = chunk.usage ?? usage;
assert(usage.completion_tokens <= 16);
console.log("passed");

/**
 * Text completion over HTTP, streamed: `npx tsx examples/completion-server.ts CHECKPOINT [--port 8080]`, then
 *
 *   curl -N localhost:8080 -d '{"prompt": "The jury said", "maxNewTokens": 80}'
 *
 * A client that goes away ends its generation; several are served at once, a token each in turn.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { describeBackend, ModuleFormerError, ModuleFormerForCausalLM, Tokenizer } from '../lib/index.js';

const options = { port: { type: 'string', default: '8080' } } as const;
const { values: flags, positionals } = parseArgs({ options, allowPositionals: true });
const [checkpoint = 'runs/by-hand/model'] = positionals;
const model = await ModuleFormerForCausalLM.fromPretrained(checkpoint);
const tokenizer = await Tokenizer.fromFile(checkpoint);
const Body = z.strictObject({
  prompt: z.string().min(1),
  maxNewTokens: z.int().min(1).max(1000).default(100),
  temperature: z.number().min(0).default(0.8),
  seed: z.int().min(0).default(0),
});

async function* complete(request: IncomingMessage, signal: AbortSignal): AsyncGenerator<string> {
  const size = Number(request.headers['content-length'] ?? Infinity);
  if (size > 100_000) throw new RangeError(`a request of ${size} bytes, expected at most 100,000`);
  const { prompt, ...sampling } = Body.parse(JSON.parse(await text(request)));
  const decoder = tokenizer.createDecodeStream({ skipSpecialTokens: true });
  for await (const token of model.stream({ inputIds: [tokenizer.encode(prompt)], ...sampling, signal })) {
    yield decoder.push(token);
  }
  yield decoder.end();
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  let pieces = 0;
  try {
    for await (const piece of complete(request, gone.signal)) {
      pieces++;
      if (!response.write(piece)) await once(response, 'drain', { signal: gone.signal });
    }
    response.end();
  } catch (error) {
    if (gone.signal.aborted) return console.log(`the client went away after ${pieces} pieces of text`);
    const isTheirs = [z.ZodError, SyntaxError, RangeError, ModuleFormerError].some((C) => error instanceof C);
    const message = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    if (!isTheirs) console.error(error);
    if (response.headersSent)
      response.destroy(); // half an answer must not look like a whole one
    else response.writeHead(isTheirs ? 400 : 500).end(`${message}\n`);
  }
}

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(flags.port), 'localhost', () => {
  console.log(`backend: ${describeBackend(model.device).summary}`);
  console.log(`http://localhost:${(server.address() as AddressInfo).port}`);
});

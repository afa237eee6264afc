/**
 * A web app that trains: `npx tsx examples/web-trainer/server.ts [--port 8080] [--steps 500] [--out DIR] FILE...`
 *
 * The page shows the loss live and has a button that stops training, after a checkpoint; the next start goes on there.
 * Training runs in a worker thread, so that whatever it does between two steps never delays an answer.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { Message, TrainingRequest } from './messages.js';

const { values: flags, positionals: files } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    steps: { type: 'string', default: '500' },
    out: { type: 'string', default: 'runs/web' },
  },
  allowPositionals: true,
});
const page = await readFile(path.join(import.meta.dirname, 'page.html'));
const request: TrainingRequest = { files, runDir: flags.out, steps: Number(flags.steps) };
const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: request });
const history: Message[] = [];
const listeners = new Set<ServerResponse>();

function tell(message: Message): void {
  history.push(message);
  for (const listener of listeners) listener.write(event(message));
  if (message.type !== 'step') console.log(JSON.stringify(message));
}

function event(message: Message): string {
  return `data: ${JSON.stringify(message)}\n\n`;
}

worker.on('message', tell);
worker.on('error', (error) => tell({ type: 'failed', reason: error.message }));

/** Server-sent events: what happened so far, then what happens. */
function listen(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(history.map(event).join(''));
  listeners.add(response);
  response.on('close', () => listeners.delete(response));
}

const server = createServer(({ method, url }, response) => {
  switch (`${method} ${url}`) {
    case 'GET /':
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
      break;
    case 'GET /events':
      listen(response);
      break;
    case 'POST /stop':
      worker.postMessage('stop');
      response.writeHead(202).end();
      break;
    default:
      response.writeHead(404).end();
  }
});
server.listen(Number(flags.port), 'localhost', () => {
  console.log(`http://localhost:${(server.address() as AddressInfo).port}`);
});

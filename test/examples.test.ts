import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { ModuleFormerConfig, ModuleFormerForCausalLM } from '../lib/index.js';
import { syntheticTexts, temporaryDir } from './support/data.js';
import { tinyConfig, tokenizer } from './support/training.js';

interface Example {
  /** Resolves with the first match in what the example prints, from here on; rejects when it ends without one. */
  printed: (pattern: RegExp) => Promise<RegExpMatchArray>;
  /** The exit code and everything printed. */
  ended: Promise<{ code: number | null; output: string }>;
}

function start(t: ExecutionContext, script: string, ...args: string[]): Example {
  const child = spawn(process.execPath, ['--import=tsx', path.join('examples', script), ...args], {
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      child.emit('output');
    });
  const ended = once(child, 'close').then(([code]) => {
    child.emit('output');
    return { code: code as number | null, output };
  });
  const printed = async (pattern: RegExp): Promise<RegExpMatchArray> => {
    for (;;) {
      const match = pattern.exec(output);
      if (match) return match;
      if (child.exitCode !== null) throw new Error(`it ended without ${pattern}:\n${output}`);
      await once(child, 'output');
    }
  };
  return { printed, ended };
}

async function textFile(t: ExecutionContext): Promise<{ dir: string; file: string }> {
  const dir = await temporaryDir(t);
  const file = path.join(dir, 'texts.txt');
  await writeFile(file, syntheticTexts(400).join('\n\n'));
  return { dir, file };
}

test('a training loop by hand, in under 60 lines', async (t) => {
  t.true((await readFile('examples/training-loop.ts', 'utf8')).split('\n').length - 1 < 60);
  const { dir, file } = await textFile(t);
  const { code, output } = await start(t, 'training-loop.ts', '--steps', '40', '--out', dir, file).ended;
  t.is(code, 0, output);
  const losses = [...output.matchAll(/loss ([\d.]+)/g)].map(([, loss]) => Number(loss));
  t.is(losses.length, 2, output);
  t.true((losses[1] as number) < (losses[0] as number), output);
  t.regex(output, /perplexity on held-out text: \d/);
  t.true((await stat(path.join(dir, 'model/tokenizer.json'))).size > 0);
});

test('fine-tuning for classification, in small', async (t) => {
  const dir = await temporaryDir(t);
  const small = ['--texts', '20', '--pretraining-steps', '4', '--steps', '10', '--out', dir];
  const { code, output } = await start(t, 'classification.ts', ...small).ended;
  t.is(code, 0, output);
  const share = /accuracy on held-out passages: ([\d.]+) %\nalways general: +([\d.]+) %/.exec(output);
  t.true(Number(share?.[1]) > 0 && Number(share?.[2]) > 20, output);
  const config = JSON.parse(await readFile(path.join(dir, 'classifier/config.json'), 'utf8')) as object;
  t.like(config, { architectures: ['ModuleFormerForSequenceClassification'] });
});

async function completionServer(t: ExecutionContext): Promise<Example & { url: string }> {
  const checkpoint = await temporaryDir(t);
  const model = new ModuleFormerForCausalLM(new ModuleFormerConfig({ ...tinyConfig, eos_token_id: null }), {
    seed: 1,
  });
  await model.savePretrained(checkpoint);
  await tokenizer.save(checkpoint);
  const server = start(t, 'completion-server.ts', checkpoint, '--port', '0');
  const [url] = await server.printed(/http:\/\/localhost:\d+/);
  return { ...server, url };
}

test('a completion server streams, refuses what is wrong, and stops for clients that leave', async (t) => {
  const { url, printed } = await completionServer(t);
  const post = (body: unknown): Promise<Response> =>
    fetch(url, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) });
  await printed(/^backend: cpu/);

  const asked = { prompt: 'abc', maxNewTokens: 12, temperature: 1 };
  const whole = await post(asked);
  t.is(whole.status, 200);
  const text = await whole.text();
  t.true(text.length > 0);
  t.is(await (await post(asked)).text(), text, 'the same request has the same answer');

  for (const [body, reason] of [
    ['{"prompt": ', /JSON/],
    [{ prompt: '' }, /prompt/],
    [{ prompt: 'a', maxNewTokens: 0 }, /maxNewTokens/],
    [{ prompt: 'a', temperature: -1 }, /temperature/],
    [{ prompt: 'a', tempreature: 1 }, /tempreature/],
    [{ prompt: 'a'.repeat(200_000) }, /100,000/],
  ] as const) {
    const refused = await post(body);
    t.is(refused.status, 400);
    t.regex(await refused.text(), reason);
  }

  const client = request(url, { method: 'POST' });
  client.on('error', () => undefined);
  const body = JSON.stringify({ prompt: 'abc', maxNewTokens: 1000 });
  client.setHeader('content-length', body.length).end(body);
  const [response] = (await once(client, 'response')) as [NodeJS.ReadableStream];
  await once(response, 'data');
  client.destroy();
  const [, pieces] = await printed(/the client went away after (\d+) pieces/);
  t.true(Number(pieces) >= 1 && Number(pieces) < 1000, 'generation ended with the connection');
  t.is(await (await post(asked)).text(), text, 'others are served as before');
});

test('a web app answers while a worker trains, and stops it when told to', async (t) => {
  const { dir, file } = await textFile(t);
  const app = start(t, 'web-trainer/server.ts', '--port', '0', '--steps', '100000', '--out', dir, file);
  const [url] = await app.printed(/http:\/\/localhost:\d+/);
  const losses: number[] = [];
  const waits: number[] = [];
  let decoder = '';
  for await (const chunk of (await fetch(`${url}/events`)).body as unknown as AsyncIterable<Uint8Array>) {
    decoder += Buffer.from(chunk).toString();
    const events = decoder.split('\n\n');
    decoder = events.pop() ?? '';
    const messages = events.map(
      (event) => JSON.parse(event.slice('data: '.length)) as { type: string; loss?: number },
    );
    for (const { type, loss } of messages) if (type === 'step') losses.push(loss as number);
    if (messages.some(({ type }) => type === 'ended' || type === 'failed')) break;
    if (losses.length === 0) continue;
    const before = performance.now();
    t.is((await fetch(url)).status, 200);
    waits.push(performance.now() - before);
    if (waits.length === 10) t.is((await fetch(`${url}/stop`, { method: 'POST' })).status, 202);
  }
  const [, ended] = await app.printed(/("type":"ended".*)\}/);
  t.regex(ended ?? '', /"status":"aborted"/);
  t.true(losses.length >= 10 && losses.every((loss) => loss > 0));
  // A step of this model takes some 30 ms; with training on the main thread's loop every answer would wait for it.
  const median = waits.sort((a, b) => a - b)[waits.length >> 1] as number;
  t.log(`${waits.length} answers while training, median ${median.toFixed(1)} ms`);
  t.true(median < 1000);
  t.is((await fetch(`${url}/none`)).status, 404, 'it still answers');
});

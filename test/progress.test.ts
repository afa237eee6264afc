import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import test from 'ava';

import { ValueError } from '../lib/errors.js';
import { formatDuration, Progress, type ProgressUpdate } from '../lib/training/progress.js';

class Capture extends Writable {
  text = '';
  columns = 120;
  readonly isTTY: boolean;
  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

const HIDE = '\x1b[?25l';
const SHOW = '\x1b[?25h';

function update(step: number, changes: Partial<ProgressUpdate> = {}): ProgressUpdate {
  return { step, loss: 4, tokensPerSecond: 123.45, elapsedSeconds: step * 2, ...changes };
}

test('without a terminal every interval gives a plain line', (t) => {
  const stream = new Capture(false);
  const progress = new Progress({ total: 200, stream, intervalSeconds: 0 });
  progress.update(update(1, { expertLoad: [{ attention: [2, 1, 1, 0], mlp: [1, 1] }] }));
  const attention = { marginal: 1, conditional: 0.5 };
  const mlp = { marginal: 2, conditional: 0 };
  progress.update(update(2, { loss: 2, tokensPerSecond: 12_345, routerEntropy: [{ attention, mlp }] }));
  progress.update(update(200));
  progress.stop();
  progress.stop();
  // Bias-corrected average of 4 and 2: (0.95 * 4 + 2) / 1.95.
  t.deepEqual(stream.text.split('\n'), [
    'step 1/200 0% | loss 4.0000 | 123 tokens/s | 6m 38s left | balance 0.88',
    'step 2/200 1% | loss 2.9744 | 12.3k tokens/s | 6m 36s left | entropy 1.50, 0.25 by token',
    'step 200/200 100% | loss 3.3339 | 123 tokens/s | 0s left',
    '',
  ]);
});

test('between two intervals nothing is printed, and stop() shows the last step', (t) => {
  const stream = new Capture(false);
  const progress = new Progress({ total: 10, stream, intervalSeconds: 1000 });
  for (let step = 1; step <= 7; step++) progress.update(update(step));
  t.is(stream.text.split('\n').length - 1, 1);
  progress.stop();
  t.regex(stream.text, /^step 1\/10 .*\nstep 7\/10 70% .*\n$/);
});

test('a loss that is not finite is shown and does not spoil the average', (t) => {
  const stream = new Capture(false);
  const progress = new Progress({ total: 10, stream, intervalSeconds: 0 });
  progress.update(update(1));
  progress.update(update(2, { loss: NaN }));
  progress.update(update(3));
  const losses = stream.text.match(/loss \S+/g);
  t.deepEqual(losses, ['loss 4.0000', 'loss NaN', 'loss 4.0000']);
});

test('a resumed run goes by its own pace', (t) => {
  const stream = new Capture(false);
  const progress = new Progress({ total: 100, startStep: 90, stream, intervalSeconds: 0 });
  progress.update(update(91, { elapsedSeconds: 1000 }));
  progress.update(update(92, { elapsedSeconds: 1001 }));
  t.deepEqual(stream.text.match(/\S+ left/g), ['? left', '8s left']);
});

test('on a terminal a bar is drawn and the cursor comes back', (t) => {
  const stream = new Capture(true);
  const progress = new Progress({ total: 10, stream });
  t.true(stream.text.includes(HIDE));
  progress.update(update(5));
  progress.log('validation: loss 3.9');
  progress.stop();
  t.true(stream.text.includes('validation: loss 3.9\n'));
  t.true(stream.text.includes('5/10 50% | loss 4.0000 | 123 tokens/s | 10s left'));
  t.true(stream.text.lastIndexOf(SHOW) > stream.text.lastIndexOf(HIDE));
  const { text } = stream;
  progress.update(update(6));
  progress.stop();
  t.true(stream.text.startsWith(text));
});

test.serial('listeners are gone after stop()', async (t) => {
  const stream = new Capture(true);
  const before = ['exit', 'SIGINT', 'SIGTERM'].map((event) => process.listenerCount(event));
  const errors = stream.listenerCount('error');
  const progress = new Progress({ total: 10, stream });
  t.is(process.listenerCount('SIGINT'), (before[1] ?? 0) + 1);
  progress.stop();
  await sleep(10);
  t.deepEqual(
    ['exit', 'SIGINT', 'SIGTERM'].map((event) => process.listenerCount(event)),
    before,
  );
  t.is(stream.listenerCount('error'), errors);
});

test('silent shows nothing', (t) => {
  const stream = new Capture(true);
  const progress = new Progress({ total: 10, stream, silent: true });
  progress.update(update(1));
  progress.log('nothing');
  progress.stop();
  t.is(stream.text, '');
});

for (const isTTY of [true, false]) {
  test(`a stream that is closed, destroyed or throws is ignored (${isTTY ? 'terminal' : 'pipe'})`, async (t) => {
    const closings: ((stream: Capture) => void)[] = [
      (stream) => stream.end(),
      (stream) => stream.destroy(),
      (stream) => stream.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })),
      (stream) => {
        stream.write = () => {
          throw new Error('gone');
        };
      },
    ];
    for (const close of closings) {
      const stream = new Capture(isTTY);
      const progress = new Progress({ total: 10, stream, intervalSeconds: 0 });
      progress.update(update(1));
      close(stream);
      await sleep(5);
      t.notThrows(() => {
        progress.update(update(2));
        progress.log('line');
        progress.stop();
      });
      await sleep(5);
    }
  });
}

const MODULE = pathToFileURL(path.resolve('lib/training/progress.ts')).href;

function runChild(code: string): ReturnType<typeof spawn> {
  const source = `const { Progress } = await import(${JSON.stringify(MODULE)}); ${code}`;
  return spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

test('a reader that closes the pipe does not end the run', async (t) => {
  const child = runChild(`
    const progress = new Progress({ total: 1e6, intervalSeconds: 0 });
    for (let step = 1; step <= 300; step++) {
      progress.update({ step, loss: 1, tokensPerSecond: 1, elapsedSeconds: step });
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    progress.stop();
    process.stderr.write('finished');`);
  let errors = '';
  child.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  child.stdout?.once('data', () => child.stdout?.destroy());
  const [code] = (await once(child, 'close')) as [number | null];
  t.is(errors, 'finished');
  t.is(code, 0);
});

test('SIGINT ends a run that does not listen for it, with the cursor restored', async (t) => {
  const child = runChild(`
    Object.defineProperty(process.stdout, 'isTTY', { value: true });
    new Progress({ total: 10 }).update({ step: 1, loss: 1, tokensPerSecond: 1, elapsedSeconds: 1 });
    setInterval(() => undefined, 1000);`);
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    if (output === '') child.kill('SIGINT');
    output += chunk.toString();
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  t.is(code, null);
  t.is(signal, 'SIGINT');
  t.true(output.lastIndexOf(SHOW) > output.lastIndexOf(HIDE));
});

test('a bar that was never stopped lets the process end, with the cursor restored', async (t) => {
  const child = runChild(`
    Object.defineProperty(process.stdout, 'isTTY', { value: true });
    new Progress({ total: 10 });`);
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  t.is(code, 0);
  t.true(output.lastIndexOf(SHOW) > output.lastIndexOf(HIDE));
});

test('durations and misuse', (t) => {
  t.deepEqual([0, 59.4, 61, 3599.6, 7384, NaN, Infinity].map(formatDuration), [
    '0s',
    '59s',
    '1m 01s',
    '1h 00m',
    '2h 03m',
    '?',
    '?',
  ]);
  t.throws(() => new Progress({ total: 1.5 }), { instanceOf: ValueError, message: /total .* got 1.5/ });
  t.throws(() => new Progress({ total: 1, startStep: -1 }), { instanceOf: ValueError, message: /startStep/ });
  t.throws(() => new Progress({ total: 1, intervalSeconds: NaN }), {
    instanceOf: ValueError,
    message: /intervalSeconds/,
  });
});

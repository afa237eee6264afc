import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';

import { describeBackend, tensor, Trainer, ValueError } from '../lib/index.js';
import { temporaryDir } from './support/data.js';
import { tinyDataset, tinyRun } from './support/training.js';

test('a backend is described on one line, with the reason for what it is not', (t) => {
  const { summary, threads, instructionSet, cuda, addon } = describeBackend();
  t.true(summary.startsWith(`cpu (${instructionSet}, ${threads} thread`), summary);
  t.true(summary.includes(`by ${addon.what}; `), summary);
  const [gpu] = cuda.names;
  t.is(gpu === undefined, cuda.reason !== '');
  t.true(summary.endsWith(gpu === undefined ? `no cuda: ${cuda.reason}` : 'is available, and not asked for'));
});

test('asking for a device that does not answer is an error with the same reason', (t) => {
  const { cuda, summary } = describeBackend('cuda');
  if (cuda.names[0] !== undefined) {
    t.true(summary.startsWith(`cuda (${cuda.names[0]}), by `), summary);
    return;
  }
  t.true(summary.startsWith(`cuda is not available: ${cuda.reason}`), summary);
  const error = t.throws(() => tensor([1], { device: 'cuda' }), { instanceOf: ValueError });
  t.true(error.message.includes(cuda.reason), error.message);
});

async function shown(t: ExecutionContext, backend?: boolean): Promise<string[]> {
  const stream = new PassThrough();
  const dataset = await tinyDataset(await temporaryDir(t));
  const progress = { stream, ...(backend === undefined ? {} : { backend }) };
  await new Trainer({ ...tinyRun(dataset), steps: 2, progress }).run();
  stream.end();
  return (await text(stream)).split('\n');
}

test('the first line of a training log says what runs, unless the caller has said it', async (t) => {
  t.is((await shown(t))[0], `backend: ${describeBackend().summary}`);
  t.regex((await shown(t, false))[0] ?? '', /^step \d\/2 /);
});

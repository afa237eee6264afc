import { join } from 'node:path';
import test from 'ava';
import { DataLoader, type Batch } from '../lib/data/loader.js';
import { streamedBatches } from '../lib/data/streamed-batches.js';
import { DataError, ValueError } from '../lib/errors.js';
import { letterTokenizer } from './support/data.js';
import { temporaryDirectory } from './support/files.js';
import { tinyDataset, tokenizer } from './support/training.js';

async function* documents(...texts: string[]): AsyncGenerator<{ text: string }> {
  for (const text of texts) yield await Promise.resolve({ text });
}

async function collect(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const all: Batch[] = [];
  for await (const batch of batches) all.push(batch);
  return all;
}

test('the batches are those of a loader over the same documents', async (t) => {
  const dataset = await tinyDataset(join(await temporaryDirectory(t), 'corpus'));
  const { tokenCount, documentOffsets } = dataset.validation;
  const ids = await dataset.validation.read(0, tokenCount);
  const texts = [...documentOffsets].map((start, i) =>
    tokenizer.decode([...ids.subarray(start, (documentOffsets[i + 1] ?? tokenCount) - 1)]),
  );
  t.true(texts.length > 5);
  for (const [batchSize, sequenceLength] of [
    [3, 16],
    [1, 7],
    [2, 1000],
    [1, tokenCount],
    [1, tokenCount - 1],
  ] as const) {
    const loader = new DataLoader({ dataset, split: 'validation', batchSize, sequenceLength });
    const streamed = streamedBatches(documents(...texts), { tokenizer, batchSize, sequenceLength });
    t.deepEqual(await collect(streamed), await collect(loader), `${batchSize} x ${sequenceLength}`);
  }
});

test('no documents give no batches, and neither does a lone token', async (t) => {
  const options = { tokenizer, batchSize: 2, sequenceLength: 4 };
  t.deepEqual(await collect(streamedBatches(documents(), options)), []);
  t.deepEqual(await collect(streamedBatches(documents(''), options)), []);
  t.is((await collect(streamedBatches(documents('a'), options))).length, 1);
});

test('what cannot work is refused', async (t) => {
  const options = { tokenizer, batchSize: 2, sequenceLength: 4 };
  const run = (changes: object): Promise<Batch[]> =>
    collect(streamedBatches(documents('a'), { ...options, ...changes }));
  await t.throwsAsync(run({ sequenceLength: 1 }), {
    instanceOf: ValueError,
    message: /sequenceLength.*got 1/,
  });
  await t.throwsAsync(run({ batchSize: 0 }), { instanceOf: ValueError, message: /batchSize.*got 0/ });
  await t.throwsAsync(run({ tokenizer: letterTokenizer(26, false) }), { instanceOf: DataError });
});

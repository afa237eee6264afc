import { truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TextDataset } from '../lib/data/dataset.js';
import { DataLoader, type Batch, type DataLoaderOptions, type LoaderState } from '../lib/data/loader.js';
import { createRandom, permutation } from '../lib/data/random.js';
import { DataError, ValueError } from '../lib/errors.js';
import { letterTokenizer, syntheticTexts, temporaryDir } from './support/data.js';

const tokenizer = letterTokenizer();
const words = syntheticTexts(150, 21, 1).map((word) => word.slice(0, -1)); // one word a document, letters only

async function dataset(t: ExecutionContext, documents: readonly string[] = words, validationFraction = 0.3) {
  const dir = await temporaryDir(t);
  const file = path.join(dir, 'corpus.jsonl');
  await writeFile(file, documents.map((text) => JSON.stringify({ text })).join('\n'));
  return TextDataset.build({ files: file, tokenizer, outDir: path.join(dir, 'tokens'), validationFraction });
}

async function take(loader: DataLoader, batches: number): Promise<Batch[]> {
  const taken: Batch[] = [];
  for await (const batch of loader) if (taken.push(batch) === batches) break;
  return taken;
}

const collect = (loader: DataLoader) => take(loader, Infinity);

/** The rows of batches: [inputIds, labels, documentStarts] each. */
function rows(batches: readonly Batch[]): number[][][] {
  return batches.flatMap(({ batchSize, sequenceLength: T, inputIds, labels, documentStarts }) =>
    Array.from({ length: batchSize }, (_, b) =>
      [inputIds, labels, documentStarts].map((values) => [...values.subarray(b * T, (b + 1) * T)]),
    ),
  );
}

test('documents in a row are kept apart', async (t) => {
  const data = await dataset(t, ['ab', 'c', 'defghij', 'k'], 0);
  const options: DataLoaderOptions = { dataset: data, batchSize: 2, sequenceLength: 5, shuffle: false };
  // a b / c / d e f g h i j / k /   with / = EOS = 0
  t.deepEqual(rows(await take(new DataLoader(options), 1)), [
    [
      [1, 2, 0, 3, 0],
      [-100, 2, 0, -100, 0],
      [0, 0, 0, 3, 3],
    ],
    [
      [4, 5, 6, 7, 8],
      [-100, 5, 6, 7, 8],
      [0, 0, 0, 0, 0],
    ],
  ]);
  const [batch] = await take(new DataLoader({ ...options, sequenceLength: 7 }), 1);
  t.deepEqual(rows(batch ? [batch] : [])[1], [
    [6, 7, 8, 9, 10, 0, 11],
    [6, 7, 8, 9, 10, 0, -100],
    [0, 0, 0, 0, 0, 0, 6],
  ]);
  t.deepEqual(rows(await take(new DataLoader({ ...options, packed: false }), 1))[0], [
    [1, 2, 0, 3, 0],
    [1, 2, 0, 3, 0],
    [0, 0, 0, 0, 0],
  ]);
});

test('validation gives every token once, in order, the last row filled up with nothing to predict', async (t) => {
  const data = await dataset(t);
  const { tokenCount } = data.validation;
  const all = [...(await data.validation.read(0, tokenCount))];
  const starts = new Set(data.validation.documentOffsets);
  const predicted = all.filter((_, i) => !starts.has(i)).length;
  for (const [batchSize, sequenceLength] of [
    [3, 8],
    [1, 2],
    [100, 7],
    [2, tokenCount - 1], // one token remains
    [2, tokenCount],
    [2, tokenCount + 5],
  ] as const) {
    const loader = new DataLoader({ dataset: data, split: 'validation', batchSize, sequenceLength });
    for (let pass = 0; pass < 2; pass++) {
      const given = rows(await collect(loader));
      t.is(given.length, loader.rowsPerEpoch);
      const ids = given.flatMap(([inputIds = []]) => inputIds);
      const kept = Math.min(ids.length, tokenCount); // a single token that remains is left out
      t.true(kept >= tokenCount - 1);
      t.deepEqual(ids.slice(0, kept), all.slice(0, kept));
      t.true(ids.slice(kept).every((id) => id === data.eosId));
      const labels = given.flatMap(([, labels = []]) => labels);
      t.is(labels.filter((label) => label !== -100).length, predicted - (tokenCount - kept));
      for (const [inputIds = [], labels = [], documentStarts = []] of given) {
        for (const [i, label] of labels.entries()) {
          t.true(label === -100 || label === inputIds[i]);
          if (documentStarts[i] === i && i > 0) t.is(label, -100);
        }
      }
      const padding = (given.at(-1) as number[][]).map((values) =>
        values.slice(values.length - ids.length + kept),
      );
      t.true(padding[1]?.every((label) => label === -100));
      t.true(padding[2]?.every((start) => start === sequenceLength - ids.length + kept));
    }
  }
});

test('an epoch of training has every whole row once, each epoch in an order of its own', async (t) => {
  const data = await dataset(t);
  const options: DataLoaderOptions = { dataset: data, batchSize: 1, sequenceLength: 6, seed: 4 };
  const loader = new DataLoader(options);
  const n = loader.rowsPerEpoch;
  t.is(n, Math.floor(data.train.tokenCount / 6));
  const key = (batch: Batch) => batch.inputIds.join();
  const order = (await take(loader, 3 * n)).map(key);
  const plain = (await take(new DataLoader({ ...options, shuffle: false }), n)).map(key);
  const epochs = [0, 1, 2].map((epoch) => order.slice(epoch * n, (epoch + 1) * n));
  for (const epoch of epochs) {
    t.deepEqual(epoch.toSorted(), plain.toSorted());
    t.notDeepEqual(epoch, plain);
  }
  t.notDeepEqual(epochs[0], epochs[1]);
  t.deepEqual((await take(new DataLoader(options), 3 * n)).map(key), order);
  t.notDeepEqual((await take(new DataLoader({ ...options, seed: 5 }), 3 * n)).map(key), order);
});

test('epochs roll over within a batch, also when an epoch is smaller than a batch', async (t) => {
  const data = await dataset(t);
  for (const sequenceLength of [6, 300]) {
    const options: DataLoaderOptions = { dataset: data, batchSize: 1, sequenceLength, seed: 9 };
    const single = rows(await take(new DataLoader(options), 210));
    t.deepEqual(rows(await take(new DataLoader({ ...options, batchSize: 7 }), 30)), single);
  }
});

test('a loader continues exactly from a state that went through JSON', async (t) => {
  const options: DataLoaderOptions = { dataset: await dataset(t), batchSize: 7, sequenceLength: 6, seed: 1 };
  const whole = await take(new DataLoader(options), 60);
  for (const cut of [0, 1, 13, 14, 29]) {
    const first = new DataLoader(options);
    if (cut > 0) await take(first, cut);
    const state = JSON.parse(JSON.stringify(first.state())) as LoaderState;
    t.is(state.epoch * first.rowsPerEpoch + state.position, cut * 7);
    const second = new DataLoader(options);
    second.load(state);
    t.deepEqual(await take(second, 60 - cut), whole.slice(cut));
    t.deepEqual(await take(first, 60 - cut), whole.slice(cut)); // and so does iterating again
  }
});

test('the state is that of the batches delivered, and may be loaded in the middle of an iteration', async (t) => {
  const loader = new DataLoader({ dataset: await dataset(t), batchSize: 2, sequenceLength: 6 });
  const seen: string[] = [];
  let state = loader.state();
  for await (const batch of loader) {
    seen.push(batch.inputIds.join());
    if (seen.length === 3) state = loader.state();
    if (seen.length === 6) loader.load(state);
    if (seen.length === 9) break;
  }
  t.deepEqual(seen.slice(6), seen.slice(3, 6));
});

test('a state of something else is refused', async (t) => {
  const options: DataLoaderOptions = { dataset: await dataset(t), batchSize: 2, sequenceLength: 6 };
  const state = new DataLoader(options).state();
  const other = await dataset(t, words.slice(1));
  for (const [name, change] of Object.entries({
    seed: { seed: 3 },
    shuffle: { shuffle: false },
    packed: { packed: false },
    sequenceLength: { sequenceLength: 7 },
    split: { split: 'validation', shuffle: true },
    dataset: { dataset: other },
  } as const)) {
    const message = new RegExp(`cannot continue: the state's ${name} is`);
    t.throws(() => new DataLoader({ ...options, ...change }).load(state), { instanceOf: DataError, message });
  }
  const loader = new DataLoader(options);
  t.throws(() => loader.load({ ...state, position: loader.rowsPerEpoch }), { instanceOf: DataError });
  t.throws(() => loader.load({ ...state, position: -1 }), { instanceOf: ValueError });
  t.throws(() => loader.load({ ...state, epoch: 0.5 }), { instanceOf: ValueError });
  t.notThrows(() => new DataLoader({ ...options, batchSize: 5 }).load(state));
});

test('a loop without waits of its own leaves room for other events', async (t) => {
  const loader = new DataLoader({ dataset: await dataset(t), batchSize: 1, sequenceLength: 6 });
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  for (let batches = 0; ticks < 5;) {
    for (const iterator = loader[Symbol.asyncIterator](); ++batches % 100 !== 0;) await iterator.next();
    if (batches > 100_000) break;
  }
  clearInterval(timer);
  t.true(ticks >= 5);
});

test('damage under a loader rejects the batch that meets it, not the process', async (t) => {
  const data = await dataset(t);
  const loader = new DataLoader({ dataset: data, batchSize: 2, sequenceLength: 6, shuffle: false });
  const iterator = loader[Symbol.asyncIterator]();
  t.false((await iterator.next()).done);
  await truncate(path.join(data.dir, 'train-00000.bin'), 40); // 20 tokens: the second batch was read ahead or fails
  const damaged = { instanceOf: DataError, message: /damaged/ };
  await t.throwsAsync(async () => {
    await iterator.next();
    await iterator.next();
  }, damaged);
  t.true(loader.state().position <= 4);
});

test('misuse is named', async (t) => {
  const data = await dataset(t, words, 0);
  const options: DataLoaderOptions = { dataset: data, batchSize: 2, sequenceLength: 6 };
  for (const change of [
    { batchSize: 0 },
    { batchSize: 1.5 },
    { sequenceLength: 1 },
    { seed: -1 },
    { seed: NaN },
  ]) {
    t.throws(() => new DataLoader({ ...options, ...change }), { instanceOf: ValueError });
  }
  const tooFew = { instanceOf: DataError, message: /too few for rows of/ };
  t.throws(() => new DataLoader({ ...options, sequenceLength: data.train.tokenCount + 1 }), tooFew);
  t.throws(() => new DataLoader({ ...options, split: 'validation' }), tooFew);
});

test('random numbers: permutations are complete and every order is equally likely', (t) => {
  t.deepEqual(
    [...permutation(1000, createRandom(1))].toSorted((a, b) => a - b),
    [...Array(1000).keys()],
  );
  t.deepEqual([...permutation(0, createRandom(1))], []);
  const counts = new Map<string, number>();
  const trials = 24_000;
  for (let seed = 0; seed < trials / 4; seed++) {
    for (let stream = 0; stream < 4; stream++) {
      const order = permutation(4, createRandom(seed, stream)).join();
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
  }
  t.is(counts.size, 24);
  const expected = trials / 24;
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  t.true(chiSquare < 49.7); // 23 degrees of freedom, p = 0.001
});

test('random numbers: seeds and streams up to 2^53 all differ', (t) => {
  const seeds = [0, 1, 2, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];
  const firsts = seeds.flatMap((seed) => seeds.map((stream) => createRandom(seed, stream).next()));
  t.is(new Set(firsts).size, 49);
  t.true(firsts.every((value) => value >= 0 && value < 1));
  t.throws(() => createRandom(2 ** 53), { instanceOf: ValueError });
});

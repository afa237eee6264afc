import { copyFile, readdir, readFile, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TextDataset, type BuildOptions } from '../lib/data/dataset.js';
import type { TokenReader } from '../lib/data/shards.js';
import { trainTokenizer } from '../lib/data/train-tokenizer.js';
import { CheckpointError, DataError, ValueError } from '../lib/errors.js';
import { letterTokenizer, syntheticTexts, temporaryDir } from './support/data.js';

const texts = syntheticTexts(300, 11, 12);
const tokenizer = await trainTokenizer({ texts, vocabSize: 400 });

/** A corpus of `documents` in one file, and a data set made from it. */
async function built(
  t: ExecutionContext,
  documents: readonly string[] = texts,
  more: Partial<BuildOptions> = {},
) {
  const dir = await temporaryDir(t);
  const file = path.join(dir, 'corpus.jsonl');
  await writeFile(file, documents.map((text) => JSON.stringify({ text })).join('\n'));
  const options = {
    files: file,
    tokenizer,
    outDir: path.join(dir, 'tokens'),
    validationFraction: 0.2,
    ...more,
  };
  return { file, options, dir: options.outDir, dataset: await TextDataset.build(options) };
}

async function documentsOf(split: TokenReader): Promise<string[]> {
  const documents = [];
  for (const [i, start] of split.documentOffsets.entries()) {
    const end = split.documentOffsets[i + 1] ?? split.tokenCount;
    const ids = [...(await split.read(start, end - start))];
    if (ids.pop() !== tokenizer.eosId) throw new Error('a document does not end with EOS');
    documents.push(tokenizer.decode(ids));
  }
  return documents;
}

const damaged = { instanceOf: DataError, message: /damaged|changed after|not a data set/ };

test('every document is in exactly one split, whole and in order', async (t) => {
  const { dataset } = await built(t);
  const train = await documentsOf(dataset.train);
  const validation = await documentsOf(dataset.validation);
  t.deepEqual(
    texts.filter((text) => !validation.includes(text)),
    train,
  );
  t.deepEqual(
    texts.filter((text) => validation.includes(text)),
    validation,
  );
  t.true(validation.length > 35 && validation.length < 90); // 300 documents of probability 0.2
  t.is(dataset.vocabSize, 400);
  t.is(dataset.eosId, 0);
  await dataset.verify();
});

test('the split depends on seed and text: equal documents stay together, other seeds split otherwise', async (t) => {
  const twice = [...texts, ...texts.toReversed()];
  const first = await built(t, twice, { seed: 1 });
  const train = await documentsOf(first.dataset.train);
  const validation = await documentsOf(first.dataset.validation);
  t.false(train.some((text) => validation.includes(text)));
  t.is(train.length + validation.length, 600);
  const again = await built(t, twice, { seed: 1 });
  t.deepEqual(await documentsOf(again.dataset.validation), validation);
  t.is(again.dataset.fingerprint, first.dataset.fingerprint);
  const other = await built(t, twice, { seed: 2 });
  t.notDeepEqual(await documentsOf(other.dataset.validation), validation);
});

test('any number of tokens per shard reads the same, at every range', async (t) => {
  const whole = (await built(t)).dataset.train;
  const all = await whole.read(0, whole.tokenCount);
  for (const shardTokens of [1000, 137]) {
    const { dir, dataset } = await built(t, texts, { shardTokens });
    t.true((await readdir(dir)).length > 5);
    for (const [start, length] of [
      [0, whole.tokenCount],
      [shardTokens - 1, 2],
      [shardTokens, shardTokens],
      [500, 1111],
      [whole.tokenCount, 0],
    ] as const) {
      t.deepEqual(await dataset.train.read(start, length), all.slice(start, start + length));
    }
    await t.throwsAsync(dataset.train.read(whole.tokenCount - 1, 2), { instanceOf: RangeError });
    await t.throwsAsync(dataset.train.read(-1, 2), { instanceOf: RangeError });
    await dataset.verify();
  }
});

test('shards larger than the write buffer, of a size that it does not divide', async (t) => {
  const letters = 'abcdefghijklmnopqrstuvwxyz'.repeat(10_000);
  const more = { tokenizer: letterTokenizer(), validationFraction: 0, shardTokens: 100_000 };
  const { dataset, dir } = await built(t, [letters, letters], more);
  t.deepEqual((await readdir(dir)).length, 6 + 2 + 1);
  t.is(dataset.train.tokenCount, 520_002);
  const ids = await dataset.train.read(0, 520_002);
  t.true(ids.every((id, i) => id === (i % 260_001 === 260_000 ? 0 : ((i % 260_001) % 26) + 1)));
  await dataset.verify();
});

test('ids above 65535 are kept', async (t) => {
  const big = letterTokenizer(26, true, 70_000);
  const { dataset } = await built(t, ['abc', 'cab', 'z', 'ac'], { tokenizer: big, validationFraction: 0 });
  const ids = [...(await dataset.train.read(0, dataset.train.tokenCount))];
  t.deepEqual(ids, [70001, 70002, 70003, 0, 70003, 70001, 70002, 0, 70026, 0, 70001, 70003, 0]);
});

test('a data set is used again exactly when content, tokenizer and options are the same', async (t) => {
  const { options, file, dir } = await built(t);
  const written = async () => (await stat(path.join(dir, 'dataset.json'))).mtimeMs;
  const before = await written();
  await TextDataset.build(options);
  const copy = path.join(await temporaryDir(t), 'corpus.jsonl');
  await copyFile(file, copy);
  await TextDataset.build({ ...options, files: copy });
  t.is(await written(), before);

  let last = (await TextDataset.open(dir)).fingerprint;
  const otherTokenizer = await trainTokenizer({ texts, vocabSize: 300 });
  for (const change of [{ seed: 5 }, { validationFraction: 0.3 }, { tokenizer: otherTokenizer }]) {
    const { fingerprint } = await TextDataset.build({ ...options, ...change });
    t.not(fingerprint, last);
    last = fingerprint;
  }
  await writeFile(file, (await readFile(file, 'utf8')).replace('."}', '!"}')); // the same size
  const dataset = await TextDataset.build({ ...options, tokenizer: otherTokenizer });
  t.not(dataset.fingerprint, last);
  await t.throwsAsync(TextDataset.open(dir, { tokenizer }), {
    instanceOf: DataError,
    message: /another tokenizer/,
  });
});

test('damage is found when opening or reading, and building again repairs it', async (t) => {
  const { options, dir } = await built(t, texts, { shardTokens: 1000 });
  const intact = await TextDataset.open(dir);
  const shard = path.join(dir, 'train-00001.bin');
  const index = path.join(dir, 'dataset.json');
  const flip = async (file: string, at: number, bits: number) => {
    const bytes = await readFile(file);
    bytes[at] = (bytes[at] ?? 0) ^ bits;
    await writeFile(file, bytes);
  };
  const damages: [string, () => Promise<void>][] = [
    ['a truncated shard', () => truncate(shard, 1998)],
    ['a missing shard', () => unlink(shard)],
    ['flipped document offsets', () => flip(path.join(dir, 'train-documents.bin'), 14, 4)],
    ['a truncated index', () => truncate(index, 300)],
    ['an empty index', () => truncate(index, 0)],
    [
      'a changed count',
      async () => writeFile(index, (await readFile(index, 'utf8')).replace('"eosId": 0', '"eosId": 1')),
    ],
    [
      'an unknown field',
      async () => writeFile(index, (await readFile(index, 'utf8')).replace('{', '{"x":1,')),
    ],
    ['an index that is null', () => writeFile(index, 'null')],
  ];
  for (const [name, damage] of damages) {
    await damage();
    await t.throwsAsync(TextDataset.open(dir), damaged, name);
    const repaired = await TextDataset.build(options);
    t.is(repaired.fingerprint, intact.fingerprint);
    await repaired.verify();
  }
  await flip(shard, 101, 0x80);
  const opened = await TextDataset.open(dir);
  await t.throwsAsync(opened.train.read(1000, 100), {
    instanceOf: DataError,
    message: /at token 50 is outside the voc/,
  });
  await flip(shard, 101, 0x80);
  await opened.verify();
  await flip(shard, 100, 1); // still an id
  await t.throwsAsync(opened.verify(), damaged);
  await truncate(shard, 10);
  await t.throwsAsync(opened.train.read(1000, 100), damaged);
});

test('a failed build leaves the old data set as it was', async (t) => {
  const { options, file, dir, dataset } = await built(t);
  await writeFile(file, '{"text":"fine"}\nnot json\n');
  await t.throwsAsync(TextDataset.build(options), {
    instanceOf: DataError,
    message: /corpus\.jsonl:2: not valid JSON/,
  });
  const still = await TextDataset.open(dir);
  t.is(still.fingerprint, dataset.fingerprint);
  await still.verify();
  t.deepEqual((await readdir(path.dirname(dir))).sort(), ['corpus.jsonl', 'tokens']);
});

test('a directory with other files is not replaced', async (t) => {
  const { options, file } = await built(t);
  const outDir = path.dirname(file);
  await t.throwsAsync(TextDataset.build({ ...options, outDir }), {
    instanceOf: CheckpointError,
    message: /corpus\.jsonl/,
  });
  t.true((await stat(file)).size > 0);
});

test('misuse is named', async (t) => {
  const dataError = (message: RegExp) => ({ instanceOf: DataError, message });
  await t.throwsAsync(built(t, []), dataError(/corpus is empty/));
  await t.throwsAsync(built(t, ['', '']), dataError(/corpus is empty/));
  await t.throwsAsync(built(t, ['one']), dataError(/none of the 1 documents fell into the validation split/));
  await t.throwsAsync(
    built(t, ['one'], { validationFraction: 0.9999999 }),
    dataError(/into the train split/),
  );
  await t.throwsAsync(
    built(t, texts, { tokenizer: letterTokenizer(26, false) }),
    dataError(/no end-of-text token/),
  );
  for (const options of [
    { validationFraction: 1 },
    { validationFraction: NaN },
    { seed: -1 },
    { shardTokens: 0 },
  ]) {
    await t.throwsAsync(built(t, texts, options), { instanceOf: ValueError });
  }
  await t.throwsAsync(TextDataset.open(await temporaryDir(t)), dataError(/dataset\.json does not exist/));
  const { dataset } = await built(t, texts, { validationFraction: 0 });
  t.is(dataset.validation.tokenCount, 0);
  t.notThrows(() => dataset.assertFits(400));
  t.throws(() => dataset.assertFits(399), dataError(/400.*399/));
});

test('progress is told', async (t) => {
  const seen: { documents: number; tokens: number }[] = [];
  const { dataset } = await built(t, texts, { onProgress: (progress) => seen.push(progress) });
  t.deepEqual(seen.at(-1), {
    documents: 300,
    tokens: dataset.train.tokenCount + dataset.validation.tokenCount,
  });
});

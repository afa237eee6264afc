import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TextDataset } from '../lib/data/dataset.js';
import { DataLoader } from '../lib/data/loader.js';
import { evaluateNgram, KneserNeyBigramModel, UnigramModel } from '../lib/data/ngram.js';
import { createRandom } from '../lib/data/random.js';
import { DataError } from '../lib/errors.js';
import { letterTokenizer, temporaryDir } from './support/data.js';

const LETTERS = 9;
const V = LETTERS + 1;
const tokenizer = letterTokenizer(LETTERS);

/** Documents of letters a to h, never i, in which some letters tend to follow others. */
function letterDocuments(count: number, seed: number): string[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => {
    let letter = random.below(8);
    return Array.from({ length: 1 + random.below(12) }, () => {
      letter = random.below(3) === 0 ? random.below(8) : (letter * 3 + 1) % 8;
      return String.fromCharCode(97 + letter);
    }).join('');
  });
}

async function build(t: ExecutionContext, documents: readonly string[], validationFraction = 0.3) {
  const dir = await temporaryDir(t);
  const file = path.join(dir, 'corpus.jsonl');
  await writeFile(file, documents.map((text) => JSON.stringify({ text })).join('\n'));
  return TextDataset.build({ files: file, tokenizer, outDir: path.join(dir, 'tokens'), validationFraction });
}

/** The pairs of neighbours of documents that end with EOS = 0. */
function pairsOf(documents: readonly string[]): [number, number][] {
  return documents.flatMap((text) => {
    const ids = [...tokenizer.encode(text), 0];
    return ids.slice(1).map((id, i): [number, number] => [ids[i] ?? -1, id]);
  });
}

/** Kneser-Ney straight from its definition, counting pairs anew for each number that is needed. */
function naiveKneserNey(pairs: readonly [number, number][], w: number, v: number): number {
  const distinct = [...new Set(pairs.map((pair) => pair.join()))].map((pair) => pair.split(',').map(Number));
  const count = (a: number, b: number) => pairs.filter(([x, y]) => x === a && y === b).length;
  const discount = (counts: number[]) => {
    const ones = counts.filter((c) => c === 1).length;
    const twos = counts.filter((c) => c === 2).length;
    return ones > 0 && twos > 0 ? ones / (ones + 2 * twos) : 0.5;
  };
  const vocabulary = [...Array(V).keys()];
  const before = (b: number) => distinct.filter(([, y]) => y === b).length;
  const d = discount(distinct.map(([a = 0, b = 0]) => count(a, b)));
  const e = discount(vocabulary.map(before));
  const seen = vocabulary.filter((b) => before(b) > 0).length;
  const q = (Math.max(before(w) - e, 0) + (e * seen) / V) / distinct.length;
  const context = pairs.filter(([x]) => x === v).length;
  if (context === 0) return q;
  const after = distinct.filter(([x]) => x === v).length;
  return Math.max(count(v, w) - d, 0) / context + ((d * after) / context) * q;
}

test('Kneser-Ney bigrams equal the definition and sum to 1, unseen tokens included', async (t) => {
  for (const [count, seed] of [
    [1, 1],
    [4, 2],
    [60, 3],
  ] as const) {
    const documents = letterDocuments(count, seed);
    const data = await build(t, documents, 0);
    const model = await KneserNeyBigramModel.train(data.train, V);
    const pairs = pairsOf(documents);
    for (let v = 0; v < V; v++) {
      let sum = 0;
      for (let w = 0; w < V; w++) {
        const p = model.probability(w, v);
        t.true(p > 0);
        t.true(Math.abs(p - naiveKneserNey(pairs, w, v)) < 1e-12);
        sum += p;
      }
      t.true(Math.abs(sum - 1) < 1e-12);
    }
  }
});

test('unigrams are add-one frequencies of the predicted tokens', async (t) => {
  const documents = letterDocuments(60, 3);
  const model = await UnigramModel.train((await build(t, documents, 0)).train, V);
  const predicted = pairsOf(documents).map(([, w]) => w);
  let sum = 0;
  for (let w = 0; w < V; w++) {
    const expected = (predicted.filter((x) => x === w).length + 1) / (predicted.length + V);
    t.true(Math.abs(model.probability(w) - expected) < 1e-15);
    sum += model.probability(w);
  }
  t.true(Math.abs(sum - 1) < 1e-12);
});

test('the perplexity is over exactly the tokens that a model is asked for', async (t) => {
  const data = await build(t, letterDocuments(200, 5));
  const model = await KneserNeyBigramModel.train(data.train, V);
  const all = [...(await data.validation.read(0, data.validation.tokenCount))];
  const starts = new Set(data.validation.documentOffsets);
  for (const T of [4, 7, all.length]) {
    const positions = all.map((_, i) => i).filter((i) => i % T !== 0 && !starts.has(i));
    const nll = positions.map((i) => -Math.log(model.probability(all[i] ?? -1, all[i - 1] ?? -1)));
    const expected = nll.reduce((a, b) => a + b, 0) / positions.length;
    const loader = new DataLoader({ dataset: data, split: 'validation', batchSize: 3, sequenceLength: T });
    const { crossEntropy, perplexity, tokens } = await evaluateNgram(model, loader);
    t.is(tokens, positions.length);
    t.true(Math.abs(crossEntropy - expected) < 1e-12);
    t.true(Math.abs(perplexity - Math.exp(expected)) < 1e-9);
  }
});

test('context helps where there is some: bigrams beat unigrams, unigrams beat the uniform distribution', async (t) => {
  const data = await build(t, letterDocuments(2000, 6));
  const loader = new DataLoader({ dataset: data, split: 'validation', batchSize: 8, sequenceLength: 32 });
  const bigram = await evaluateNgram(await KneserNeyBigramModel.train(data.train, V), loader);
  const unigram = await evaluateNgram(await UnigramModel.train(data.train, V), loader);
  t.is(bigram.tokens, unigram.tokens);
  t.true(bigram.perplexity < 0.8 * unigram.perplexity);
  t.true(unigram.perplexity < V);
});

test('many distinct pairs are counted right', async (t) => {
  const random = createRandom(8);
  const documents = [Array.from({ length: 60_000 }, () => random.below(300) + 1)];
  const ids = Int32Array.from([...(documents[0] ?? []), 0]);
  const vocabSize = 100_000; // keys above 2^32
  const tokens = {
    tokenCount: ids.length,
    documentOffsets: Float64Array.of(0),
    read: (start: number, length: number) =>
      Promise.resolve(ids.map((id) => id * 300).slice(start, start + length)),
  };
  const model = await KneserNeyBigramModel.train(tokens, vocabSize);
  const seen = new Map<number, number>();
  for (let i = 1; i < ids.length; i++)
    if (ids[i - 1] === 7) seen.set(ids[i] ?? 0, (seen.get(ids[i] ?? 0) ?? 0) + 1);
  const order = (a: [number, number], b: [number, number]) => b[1] - a[1];
  const [[top = 0, most = 0] = []] = [...seen].sort(order);
  t.true(most > 1);
  const total = [...seen.values()].reduce((a, b) => a + b, 0);
  const unseen = model.probability(99_999, 7 * 300);
  t.true(Math.abs(model.probability(top * 300, 7 * 300) - most / total) < 1 / total);
  t.true(unseen > 0 && unseen < 1e-4);
});

test('nothing to count or to predict is an error', async (t) => {
  const empty = {
    tokenCount: 1,
    documentOffsets: Float64Array.of(0),
    read: () => Promise.resolve(Int32Array.of(0)),
  };
  await t.throwsAsync(KneserNeyBigramModel.train(empty, V), { instanceOf: DataError });
  const model = await UnigramModel.train(empty, V);
  t.is(model.probability(3), 1 / V);
  await t.throwsAsync(evaluateNgram(model, []), { instanceOf: DataError });
});

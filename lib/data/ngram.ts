import { DataError } from '../errors.js';
import { IGNORED_LABEL, type Batch } from './loader.js';
import type { TokenReader } from './shards.js';

/** A model that predicts a token from the one before it. Every P(. | previous) sums to 1 over the vocabulary. */
export interface NextTokenModel {
  /** p(token | previous), in (0, 1]. */
  probability(token: number, previous: number): number;
}

/** What an n-gram model scores. */
export interface NgramEvaluation {
  /** Mean negative log-likelihood per predicted token, in nats. */
  readonly crossEntropy: number;
  /** exp(crossEntropy) */
  readonly perplexity: number;
  /** The predicted tokens. */
  readonly tokens: number;
}

/** The documents to count in: a split of a data set. */
type Tokens = Pick<TokenReader, 'tokenCount' | 'documentOffsets' | 'read'>;

/** Tokens are read in pieces of this many. */
const CHUNK = 1 << 18;

/** Relative frequencies with one added to every token's count (Laplace), so that unseen tokens have a share. */
export class UnigramModel implements NextTokenModel {
  readonly #counts: Float64Array;
  readonly #total: number;

  private constructor(counts: Float64Array) {
    this.#counts = counts;
    this.#total = counts.reduce((sum, count) => sum + count, 0) + counts.length;
  }

  /** Counts every token that is predicted within a document: all but each document's first. */
  static async train(tokens: Tokens, vocabSize: number): Promise<UnigramModel> {
    const counts = new Float64Array(vocabSize);
    await forEachPair(tokens, (_, token) => {
      counts[token] = (counts[token] as number) + 1;
    });
    return new UnigramModel(counts);
  }

  /** p(token | previous), in (0, 1]. */
  probability(token: number): number {
    return ((this.#counts[token] as number) + 1) / this.#total;
  }
}

/**
 * Interpolated Kneser-Ney bigrams (Chen and Goodman 1999, section 2.7): with c(v w) the count of a pair, c(v) its sum
 * over w and N the number of distinct pairs of a kind,
 *
 *   P(w | v) = max(c(v w) - d, 0) / c(v) + d N(v .) / c(v) * Q(w)
 *   Q(w)     = max(N(. w) - e, 0) / N(. .) + e N(w: N(. w) > 0) / N(. .) / V
 *
 * Q is the share of continuations, discounted in the same way towards the uniform distribution so that an unseen token
 * is possible; an unseen v gives Q. Discounts are n1 / (n1 + 2 n2), n1 and n2 being how many counts are 1 and 2.
 */
export class KneserNeyBigramModel implements NextTokenModel {
  readonly #vocabSize: number;
  readonly #pairs: CountTable;
  /** c(v), N(v .) and N(. w), each [V]. */
  readonly #contextCounts: Float64Array;
  readonly #followers: Float64Array;
  readonly #predecessors: Float64Array;
  readonly #discount: number;
  readonly #unigramDiscount: number;
  readonly #seenTokens: number;

  private constructor(pairs: CountTable, vocabSize: number) {
    this.#vocabSize = vocabSize;
    this.#pairs = pairs;
    this.#contextCounts = new Float64Array(vocabSize);
    this.#followers = new Float64Array(vocabSize);
    this.#predecessors = new Float64Array(vocabSize);
    const discount = new DiscountEstimate();
    for (const [pair, count] of pairs.entries()) {
      discount.add(count);
      add(this.#contextCounts, Math.floor(pair / vocabSize), count);
      add(this.#followers, Math.floor(pair / vocabSize), 1);
      add(this.#predecessors, pair % vocabSize, 1);
    }
    const unigramDiscount = new DiscountEstimate();
    for (const count of this.#predecessors) unigramDiscount.add(count);
    this.#discount = discount.value;
    this.#unigramDiscount = unigramDiscount.value;
    this.#seenTokens = this.#predecessors.reduce((seen, count) => seen + (count > 0 ? 1 : 0), 0);
  }

  /** Counts the pairs of neighbours within each document. */
  static async train(tokens: Tokens, vocabSize: number): Promise<KneserNeyBigramModel> {
    const pairs = new CountTable();
    await forEachPair(tokens, (previous, token) => pairs.increment(previous * vocabSize + token));
    if (pairs.size === 0) throw new DataError('no document has two tokens: there are no bigrams to count');
    return new KneserNeyBigramModel(pairs, vocabSize);
  }

  /** p(token | previous), in (0, 1]. */
  probability(token: number, previous: number): number {
    const lower = this.#continuation(token);
    const context = this.#contextCounts[previous] as number;
    if (context === 0) return lower;
    const count = this.#pairs.get(previous * this.#vocabSize + token);
    const backoff = this.#discount * (this.#followers[previous] as number) * lower;
    return (Math.max(count - this.#discount, 0) + backoff) / context;
  }

  #continuation(token: number): number {
    const predecessors = this.#predecessors[token] as number;
    const uniform = (this.#unigramDiscount * this.#seenTokens) / this.#vocabSize;
    return (Math.max(predecessors - this.#unigramDiscount, 0) + uniform) / this.#pairs.size;
  }
}

/**
 * The perplexity over exactly the tokens that a language model's loss counts in these batches: label t, from token
 * t - 1, wherever it is not ignored. Give it the loader that the language model is evaluated with.
 *
 * @throws DataError when no token is predicted.
 */
export async function evaluateNgram(
  model: NextTokenModel,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
): Promise<NgramEvaluation> {
  let sum = 0;
  let tokens = 0;
  for await (const { inputIds, labels, sequenceLength } of batches) {
    for (let i = 0; i < labels.length; i++) {
      const label = labels[i] as number;
      if (i % sequenceLength === 0 || label === IGNORED_LABEL) continue;
      sum -= Math.log(model.probability(label, inputIds[i - 1] as number));
      tokens++;
    }
  }
  if (tokens === 0) throw new DataError('evaluateNgram: the batches predict no token');
  return { crossEntropy: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
}

/** Visits each token but a document's first, with the one before it. */
async function forEachPair(tokens: Tokens, visit: (previous: number, token: number) => void): Promise<void> {
  const { documentOffsets, tokenCount } = tokens;
  let document = 0;
  let previous = -1;
  for (let start = 0; start < tokenCount; start += CHUNK) {
    const ids = await tokens.read(start, Math.min(CHUNK, tokenCount - start));
    for (let i = 0; i < ids.length; i++) {
      const token = ids[i] as number;
      if (documentOffsets[document] === start + i) document++;
      else visit(previous, token);
      previous = token;
    }
  }
}

function add(values: Float64Array, index: number, amount: number): void {
  values[index] = (values[index] as number) + amount;
}

/** The absolute discount n1 / (n1 + 2 n2) of some counts; 1/2 when none of them is 1 or none 2. */
class DiscountEstimate {
  #ones = 0;
  #twos = 0;

  add(count: number): void {
    if (count === 1) this.#ones++;
    else if (count === 2) this.#twos++;
  }

  get value(): number {
    return this.#ones > 0 && this.#twos > 0 ? this.#ones / (this.#ones + 2 * this.#twos) : 0.5;
  }
}

/** Counts by a non-negative integer key below 2^53: a hash table, for more entries than a Map can hold (2^24). */
class CountTable {
  size = 0;
  #keys = new Float64Array(1 << 10).fill(-1);
  #counts = new Float64Array(1 << 10);

  increment(key: number): void {
    const slot = this.#slot(key);
    if (this.#keys[slot] === -1) {
      this.#keys[slot] = key;
      this.size++;
    }
    add(this.#counts, slot, 1);
    if (this.size * 2 > this.#keys.length) this.#grow();
  }

  get(key: number): number {
    return this.#counts[this.#slot(key)] as number;
  }

  /** Key and count of each entry, in no particular but always the same order. */
  *entries(): Generator<[number, number]> {
    for (const [slot, key] of this.#keys.entries()) if (key !== -1) yield [key, this.#counts[slot] as number];
  }

  /** The slot that holds a key, or the free one where it belongs (linear probing). */
  #slot(key: number): number {
    const mask = this.#keys.length - 1;
    const low = Math.imul(key >>> 0, 0x9e3779b1) ^ Math.imul(Math.floor(key / 2 ** 32), 0x85ebca6b);
    let slot = (low ^ (low >>> 15)) & mask;
    while (this.#keys[slot] !== -1 && this.#keys[slot] !== key) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const [keys, counts] = [this.#keys, this.#counts];
    this.#keys = new Float64Array(keys.length * 2).fill(-1);
    this.#counts = new Float64Array(keys.length * 2);
    for (const [old, key] of keys.entries()) {
      if (key === -1) continue;
      const slot = this.#slot(key);
      this.#keys[slot] = key;
      this.#counts[slot] = counts[old] as number;
    }
  }
}

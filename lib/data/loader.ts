import { setImmediate } from 'node:timers/promises';
import { DataError, ValueError } from '../errors.js';
import type { Split, TextDataset } from './dataset.js';
import { createRandom, permutation } from './random.js';
import type { TokenReader } from './shards.js';

/** Which rows are read, in which order. */
export interface DataLoaderOptions {
  /** What is read. */
  dataset: TextDataset;
  /** Default 'train'. */
  split?: Split;
  /** B: rows of a batch. */
  batchSize: number;
  /** T: tokens of a row, at least 2. */
  sequenceLength: number;
  /** Decides the order of the rows. Default 0. */
  seed?: number;
  /** Whether every epoch has an order of its own. Default: in 'train' only. */
  shuffle?: boolean;
  /**
   * Whether the documents in a row are kept apart: no label at a document's first token, and `documentStarts` marks
   * where each begins. Without it a row is one continuous text. Default true.
   */
  packed?: boolean;
}

/** B rows of T tokens, row by row. The model shifts: position t-1 predicts `labels[t]`. */
export interface Batch {
  /** B. */
  readonly batchSize: number;
  /** T. */
  readonly sequenceLength: number;
  /** [B*T] */
  readonly inputIds: Int32Array;
  /** `[B*T]`: `inputIds`, but -100 (ignored) at a document's first token and at padding. */
  readonly labels: Int32Array;
  /** `[B*T]`: where in its row the document of a position begins; attention must not look before that. */
  readonly documentStarts: Int32Array;
}

/** Where a loader is, as JSON. */
export interface LoaderState {
  /** Epochs that are used up. */
  readonly epoch: number;
  /** Rows of this epoch already delivered. */
  readonly position: number;
  /** Decides the order of the rows. */
  readonly seed: number;
  /** Whether every epoch has an order of its own. */
  readonly shuffle: boolean;
  /** Whether documents are kept apart. */
  readonly packed: boolean;
  /** Which part of the data set. */
  readonly split: Split;
  /** T, tokens of a row. */
  readonly sequenceLength: number;
  /** The data set's fingerprint. */
  readonly dataset: string;
}

/** The label of a position that has no loss. */
export const IGNORED_LABEL = -100;

/**
 * Batches of a data set: the documents of a split, joined, are cut into rows of `sequenceLength` tokens.
 *
 * 'train' never ends: a new order of the rows follows when the old one is used up, also within a batch; the tokens
 * after the last whole row are left out. Iterating again, or after `load`, goes on where the last batch ended.
 * 'validation' gives every row once, in order unless shuffled, and starts anew with each iteration; the last batch has
 * the rows that remain, and the last row is filled up with EOS that is neither predicted nor seen.
 *
 * One batch is read ahead. Each batch lets pending events of Node run before it is delivered.
 */
export class DataLoader implements AsyncIterable<Batch> {
  /** What is read. */
  readonly dataset: TextDataset;
  /** B, rows of a batch. */
  readonly batchSize: number;
  /** T, tokens of a row. */
  readonly sequenceLength: number;
  /** Which part of the data set. */
  readonly split: Split;
  /** Rows of an epoch. */
  readonly rowsPerEpoch: number;
  readonly #tokens: TokenReader;
  readonly #eosId: number;
  readonly #identity: Omit<LoaderState, 'epoch' | 'position'>;
  /** Rows delivered since the beginning of epoch 0. */
  #position = 0;
  #order: { epoch: number; rows: Uint32Array } | undefined;

  /**
   * @throws ValueError when a size is impossible.
   * @throws DataError when the split has not enough tokens for a row.
   */
  constructor(options: DataLoaderOptions) {
    const { dataset, split = 'train', batchSize, sequenceLength, seed = 0, packed = true } = options;
    const shuffle = options.shuffle ?? split === 'train';
    assertInteger('batchSize', batchSize, 1);
    assertInteger('sequenceLength', sequenceLength, 2);
    assertInteger('seed', seed, 0);
    const tokens = dataset[split];
    // A last row of a single token would predict nothing.
    const partial = Math.max(0, Math.ceil((tokens.tokenCount - 1) / sequenceLength));
    this.rowsPerEpoch = split === 'train' ? Math.floor(tokens.tokenCount / sequenceLength) : partial;
    if (this.rowsPerEpoch === 0) {
      throw new DataError(
        `the ${split} split of ${dataset.dir} has ${tokens.tokenCount} tokens, too few for rows of ${sequenceLength}`,
      );
    }
    this.dataset = dataset;
    this.batchSize = batchSize;
    this.sequenceLength = sequenceLength;
    this.split = split;
    this.#tokens = tokens;
    this.#eosId = dataset.eosId;
    this.#identity = { seed, shuffle, packed, split, sequenceLength, dataset: dataset.fingerprint };
  }

  /** Batches of an epoch, rounded up. */
  get batchesPerEpoch(): number {
    return Math.ceil(this.rowsPerEpoch / this.batchSize);
  }

  /** Where the next batch begins; what was read ahead does not count. */
  state(): LoaderState {
    return {
      epoch: Math.floor(this.#position / this.rowsPerEpoch),
      position: this.#position % this.rowsPerEpoch,
      ...this.#identity,
    };
  }

  /**
   * Continues where another loader was. The batch size may differ, everything else that decides the rows may not.
   * @throws DataError when the state is of other data, or of other settings.
   */
  load(state: LoaderState): void {
    for (const [name, value] of Object.entries(this.#identity)) {
      const given = state[name as keyof LoaderState];
      if (given !== value) {
        throw new DataError(`cannot continue: the state's ${name} is ${given}, this loader's is ${value}`);
      }
    }
    const { epoch, position } = state;
    assertInteger('state.epoch', epoch, 0);
    assertInteger('state.position', position, 0);
    if (position >= this.rowsPerEpoch) {
      throw new DataError(
        `cannot continue: state.position ${position} is not below ${this.rowsPerEpoch} rows`,
      );
    }
    this.#position = epoch * this.rowsPerEpoch + position;
  }

  /** Batches from where the loader stands: endless for training, the whole split once for validation. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
    const endless = this.split === 'train';
    if (!endless) this.#position = 0;
    let ahead: { start: number; batch: Promise<Batch> } | undefined;
    for (;;) {
      const start = this.#position;
      const rows = endless ? this.batchSize : Math.min(this.batchSize, this.rowsPerEpoch - start);
      if (rows === 0) return;
      // The position may have been changed from outside since the batch was read.
      const reading = ahead?.start === start ? ahead.batch : this.#readBatch(start, rows);
      const [batch] = await Promise.all([reading, setImmediate()]);
      const next = start + rows;
      const nextRows = endless ? this.batchSize : Math.min(this.batchSize, this.rowsPerEpoch - next);
      ahead = { start: next, batch: this.#readBatch(next, nextRows) };
      ahead.batch.catch(() => undefined); // thrown when it is asked for
      this.#position = next;
      yield batch;
    }
  }

  async #readBatch(start: number, batchSize: number): Promise<Batch> {
    const size = batchSize * this.sequenceLength;
    const batch = {
      batchSize,
      sequenceLength: this.sequenceLength,
      inputIds: new Int32Array(size).fill(this.#eosId),
      labels: new Int32Array(size).fill(IGNORED_LABEL),
      documentStarts: new Int32Array(size),
    };
    for (let b = 0; b < batchSize; b++) await this.#readRow(batch, b, this.#rowAt(start + b));
    return batch;
  }

  /** Fills row b with row number `row` of the split. */
  async #readRow(batch: Batch, b: number, row: number): Promise<void> {
    const first = row * this.sequenceLength;
    const count = Math.min(this.sequenceLength, this.#tokens.tokenCount - first);
    const ids = await this.#tokens.read(first, count);
    const at = b * this.sequenceLength;
    batch.inputIds.set(ids, at);
    batch.labels.set(ids, at);
    if (this.#identity.packed) {
      const offsets = this.#tokens.documentOffsets;
      let document = firstAtOrAfter(offsets, first);
      for (; (offsets[document] ?? Infinity) < first + count; document++) {
        const begin = (offsets[document] as number) - first;
        batch.labels[at + begin] = IGNORED_LABEL;
        batch.documentStarts.fill(begin, at + begin, at + count);
      }
    }
    batch.documentStarts.fill(count, at + count, at + this.sequenceLength); // padding is a document of its own
  }

  #rowAt(position: number): number {
    const epoch = Math.floor(position / this.rowsPerEpoch);
    const index = position % this.rowsPerEpoch;
    if (!this.#identity.shuffle) return index;
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, rows: permutation(this.rowsPerEpoch, createRandom(this.#identity.seed, epoch)) };
    }
    return this.#order.rows[index] as number;
  }
}

/** The index of the first of the ascending values that is at least `value`. */
function firstAtOrAfter(values: Float64Array, value: number): number {
  let low = 0;
  for (let high = values.length; low < high;) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function assertInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ValueError(`${name} must be an integer of at least ${least}, got ${value}`);
  }
}

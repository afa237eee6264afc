import { DataError, ValueError } from '../errors.js';
import type { Document } from './corpus.js';
import { IGNORED_LABEL, type Batch } from './loader.js';
import type { Tokenizer } from './tokenizer.js';

/** Where streamed batches come from, and their shape. */
export interface StreamedBatchesOptions {
  /** Must have an end-of-text token, which is put after each document. */
  tokenizer: Tokenizer;
  /** B: rows of a batch; the last one may have fewer. */
  batchSize: number;
  /** T: tokens of a row, at least 2. */
  sequenceLength: number;
}

/**
 * Documents as packed batches without a data set on disk: each ends with EOS, all are joined and cut into rows of
 * `sequenceLength` tokens; the last row is filled up with EOS that is neither predicted nor seen. The same batches as
 * those of a `DataLoader` over a validation split of these documents.
 *
 * @throws DataError when the tokenizer has no end-of-text token; ValueError when a size is impossible.
 */
export async function* streamedBatches(
  documents: AsyncIterable<Pick<Document, 'text'>>,
  { tokenizer, batchSize, sequenceLength }: StreamedBatchesOptions,
): AsyncGenerator<Batch, void, void> {
  const { eosId } = tokenizer;
  if (eosId === undefined) throw new DataError('the tokenizer has no end-of-text token (eos_token)');
  for (const [name, value, least] of [
    ['batchSize', batchSize, 1],
    ['sequenceLength', sequenceLength, 2],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new ValueError(`${name} must be an integer of at least ${least}, got ${value}`);
    }
  }
  const size = batchSize * sequenceLength;
  let ids: number[] = [];
  /** Where in `ids` documents begin. */
  let starts: number[] = [];
  for await (const { text } of documents) {
    starts.push(ids.length);
    const [encoded = []] = await tokenizer.encodeBatch([text]);
    // One by one: a document can have more tokens than a call takes arguments.
    for (const id of encoded) ids.push(id);
    ids.push(eosId);
    let from = 0;
    for (; ids.length - from > size; from += size) {
      yield toBatch(ids.slice(from, from + size), shifted(starts, from), {
        batchSize,
        sequenceLength,
        eosId,
      });
    }
    ids = ids.slice(from);
    starts = shifted(starts, from);
  }
  // A last row of a single token would predict nothing.
  const rows = Math.ceil((ids.length - 1) / sequenceLength);
  if (rows > 0) yield toBatch(ids, starts, { batchSize: rows, sequenceLength, eosId });
}

function shifted(starts: readonly number[], by: number): number[] {
  return starts.filter((start) => start >= by).map((start) => start - by);
}

/** Rows of the given ids, filled up with EOS, with the labels and document starts of a packed loader. */
function toBatch(
  ids: readonly number[],
  starts: readonly number[],
  { batchSize, sequenceLength, eosId }: { batchSize: number; sequenceLength: number; eosId: number },
): Batch {
  const size = batchSize * sequenceLength;
  const inputIds = new Int32Array(size).fill(eosId);
  const labels = new Int32Array(size).fill(IGNORED_LABEL);
  const documentStarts = new Int32Array(size);
  const used = ids.slice(0, size);
  inputIds.set(used);
  labels.set(used);
  // What fills up the last row is a document of its own.
  for (const start of used.length < size ? [...starts, used.length] : starts) {
    if (start >= size) continue;
    const rowEnd = (Math.floor(start / sequenceLength) + 1) * sequenceLength;
    labels[start] = IGNORED_LABEL;
    documentStarts.fill(start % sequenceLength, start, rowEnd);
  }
  return { batchSize, sequenceLength, inputIds, labels, documentStarts };
}

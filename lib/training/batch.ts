import type { Batch } from '../data/loader.js';
import type { CausalLMInputs } from '../model/causal-lm.js';
import { tensor, type Device } from '../tensor.js';

/** A loader's batch as a model's inputs, [B, T] each. The tensors belong to the current scope. */
export function batchInputs(
  { batchSize, sequenceLength, inputIds, labels, documentStarts }: Batch,
  device: Device,
): Pick<CausalLMInputs, 'inputIds' | 'labels' | 'documentStarts'> {
  const matrix = (values: Int32Array) => tensor(values, { shape: [batchSize, sequenceLength], device });
  return { inputIds: matrix(inputIds), labels: matrix(labels), documentStarts: matrix(documentStarts) };
}

/** How many tokens of a batch are predicted: those with a label, except in a row's first position. */
export function countPredicted({ labels, sequenceLength }: Batch): number {
  let count = 0;
  for (let i = 0; i < labels.length; i++) {
    if (i % sequenceLength !== 0 && (labels[i] as number) >= 0) count++;
  }
  return count;
}

/**
 * `[B*T]`: 1 for text, 0 for the padding that fills up a last row, which is a document of its own in which nothing is
 * predicted. (A row that ends with the first token of a document looks like one with a single token of padding: that
 * counts as text.)
 */
export function textMask({ labels, documentStarts, sequenceLength: T }: Batch): Int32Array {
  const mask = new Int32Array(labels.length).fill(1);
  for (let row = 0; row < labels.length; row += T) {
    const start = row + (documentStarts[row + T - 1] as number);
    const last = row + T;
    if (start < last - 1 && labels.subarray(start, last).every((label) => label < 0))
      mask.fill(0, start, last);
  }
  return mask;
}

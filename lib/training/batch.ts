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

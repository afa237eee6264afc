import { logSumExp } from './softmax.js';

/** logits [N, V], labels [N] with -100 ignored -> the mean loss, 0 without labels. */
export function crossEntropy(logits: ArrayLike<number>, labels: ArrayLike<number>, V: number): number {
  let sum = 0;
  let count = 0;
  for (let n = 0; n < labels.length; n++) {
    const label = labels[n] as number;
    if (label === -100) continue;
    sum += logSumExp(logits, n * V, V) - (logits[n * V + label] as number);
    count++;
  }
  return count === 0 ? 0 : sum / count;
}

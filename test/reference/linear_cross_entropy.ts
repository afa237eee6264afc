import { crossEntropy } from './cross_entropy.js';

export interface HeadInputs {
  x: ArrayLike<number>;
  weight: ArrayLike<number>;
  labels: ArrayLike<number>;
}

/** x [N, D], weight [V, D], labels [N] -> the mean loss of the logits x weight^T. */
export function linearCrossEntropy({ x, weight, labels }: HeadInputs, V: number, D: number): number {
  const N = labels.length;
  const logits = new Float64Array(N * V);
  for (let n = 0; n < N; n++) {
    for (let v = 0; v < V; v++) {
      let dot = 0;
      for (let d = 0; d < D; d++) dot += (x[n * D + d] as number) * (weight[v * D + d] as number);
      logits[n * V + v] = dot;
    }
  }
  return crossEntropy(logits, labels, V);
}

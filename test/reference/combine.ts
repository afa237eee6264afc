/** y [N * K, D], gates [N, K] or null (all 1) -> out [N, D] = sum_k gate * y. */
export function combine(
  y: ArrayLike<number>,
  gates: ArrayLike<number> | null,
  { N, K, D }: { N: number; K: number; D: number },
): Float64Array {
  const out = new Float64Array(N * D);
  for (let r = 0; r < N * K; r++) {
    for (let d = 0; d < D; d++) {
      const i = Math.floor(r / K) * D + d;
      out[i] = out[i]! + (gates ? gates[r]! : 1) * y[r * D + d]!;
    }
  }
  return out;
}

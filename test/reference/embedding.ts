/** weight [V, D], ids [N] -> [N, D]. */
export function embedding(weight: ArrayLike<number>, ids: ArrayLike<number>, D: number): Float64Array {
  const out = new Float64Array(ids.length * D);
  for (let n = 0; n < ids.length; n++)
    for (let d = 0; d < D; d++) out[n * D + d] = weight[(ids[n] as number) * D + d] as number;
  return out;
}

/** Each row of D numbers over its 2-norm, or over 1e-12 where that is less. */
export function l2Normalize(x: ArrayLike<number>, D: number): Float64Array {
  const norms = Array.from({ length: x.length / D }, (_, r) => {
    let square = 0;
    for (let d = 0; d < D; d++) square += (x[r * D + d] as number) ** 2;
    return Math.max(Math.sqrt(square), 1e-12);
  });
  return Float64Array.from(x, (v, i) => v / (norms[Math.floor(i / D)] as number));
}

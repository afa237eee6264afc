export function logSumExp(x: ArrayLike<number>, start: number, D: number): number {
  const row = Array.from({ length: D }, (_, d) => x[start + d] as number);
  const max = Math.max(...row);
  return max + Math.log(row.reduce((sum, v) => sum + Math.exp(v - max), 0));
}

/** x - log(sum(exp(x))) over rows of D numbers. */
export function logSoftmax(x: ArrayLike<number>, D: number): Float64Array {
  const rows = Array.from({ length: x.length / D }, (_, r) => logSumExp(x, r * D, D));
  return Float64Array.from(x, (v, i) => v - (rows[Math.floor(i / D)] as number));
}

/** exp(x) / sum(exp(x)) over rows of D numbers. */
export function softmaxRows(x: ArrayLike<number>, D: number): Float64Array {
  return logSoftmax(x, D).map(Math.exp);
}

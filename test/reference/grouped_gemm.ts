/** y [N, out] = x [N, in] weight^T + bias, weight [out, in], bias [out] or null. */
export function linear(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | null,
  { N, width, out }: { N: number; width: number; out: number },
): Float64Array {
  const y = new Float64Array(N * out);
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < out; o++) {
      let sum = bias ? bias[o]! : 0;
      for (let i = 0; i < width; i++) sum += x[n * width + i]! * weight[o * width + i]!;
      y[n * out + o] = sum;
    }
  }
  return y;
}

/**
 * Slot row r of the result is row `source(r)` of x times the matrix of expert experts[r]: w [E, in, out] -> [R, out].
 */
export function expertRows(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  experts: ArrayLike<number>,
  { width, out }: { width: number; out: number },
  source: (row: number) => number = (row) => row,
): Float64Array {
  const y = new Float64Array(experts.length * out);
  for (let r = 0; r < experts.length; r++) {
    for (let o = 0; o < out; o++) {
      let sum = 0;
      for (let i = 0; i < width; i++) {
        sum += x[source(r) * width + i]! * w[(experts[r]! * width + i) * out + o]!;
      }
      y[r * out + o] = sum;
    }
  }
  return y;
}

/** The slot row of each sorted row. */
export function sortedOrder(experts: ArrayLike<number>): number[] {
  return Array.from(experts, (_, row) => row).sort((a, b) => experts[a]! - experts[b]! || a - b);
}

/** erf by its Taylor series, which is exact enough below 6; 1 beyond. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (-x * x * (2 * n - 1)) / (n * (2 * n + 1));
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

export const activations = {
  gelu: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluNew: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  relu: (x: number) => Math.max(x, 0),
};

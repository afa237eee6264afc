export interface NormInputs {
  x: ArrayLike<number>;
  weight: ArrayLike<number>;
  bias: ArrayLike<number> | null;
}

/** Each row of D numbers, centred where `centred`, over its standard deviation, times weight, plus bias. */
export function norm({ x, weight, bias }: NormInputs, centred: boolean, eps: number): Float64Array {
  const D = weight.length;
  const out = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += D) {
    const row = Array.from({ length: D }, (_, d) => x[start + d] as number);
    const mean = centred ? row.reduce((a, b) => a + b, 0) / D : 0;
    const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / D;
    row.forEach((v, d) => {
      out[start + d] = ((v - mean) / Math.sqrt(variance + eps)) * (weight[d] as number) + (bias?.[d] ?? 0);
    });
  }
  return out;
}

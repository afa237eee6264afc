/**
 * Symmetric 8-bit groups: w [rows, in] (inputs innermost) -> values and scales, value = round(w / scale), scale = the
 * group's largest magnitude / 127 in f32.
 */
export function quantize(
  w: ArrayLike<number>,
  rows: number,
  width: number,
  groupSize: number,
): { values: Float64Array; scales: Float64Array } {
  const values = new Float64Array(rows * width);
  const scales = new Float64Array((rows * width) / groupSize);
  for (let g = 0; g < scales.length; g++) {
    let top = 0;
    for (let k = 0; k < groupSize; k++) top = Math.max(top, Math.abs(w[g * groupSize + k]!));
    const scale = Math.fround(top / 127);
    scales[g] = scale;
    for (let k = 0; k < groupSize; k++) {
      values[g * groupSize + k] = scale === 0 ? 0 : Math.round(w[g * groupSize + k]! / scale);
    }
  }
  return { values, scales };
}

/** values * scales. */
export function dequantize(
  values: ArrayLike<number>,
  scales: ArrayLike<number>,
  groupSize: number,
): Float64Array {
  return Float64Array.from(values, (value, i) => value * scales[Math.floor(i / groupSize)]!);
}

/** w [E, in, out] as [E, out, in]. */
export function inputsInnermost(w: ArrayLike<number>, E: number, width: number, out: number): Float64Array {
  const result = new Float64Array(w.length);
  for (let e = 0; e < E; e++)
    for (let i = 0; i < width; i++)
      for (let o = 0; o < out; o++) result[(e * out + o) * width + i] = w[(e * width + i) * out + o]!;
  return result;
}

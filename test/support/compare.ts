import type { ExecutionContext } from 'ava';
import type { DType, Tensor } from '../../lib/tensor.js';

/** An array of the oracle: float64 (or integers as numbers), row-major. */
export interface NdArray {
  data: ArrayLike<number>;
  shape: readonly number[];
}

/** Half the spacing of numbers near 1. */
export const epsilon: Record<'f64' | 'f32' | 'bf16', number> = {
  f64: 2 ** -53,
  f32: 2 ** -24,
  bf16: 2 ** -8,
};

/** ||a - b|| / ||b||; 0 when both are zero, Infinity when either holds something not finite or lengths differ. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    const x = Number(a[i]);
    const y = Number(b[i]);
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity;
    difference += (x - y) ** 2;
    norm += y ** 2;
  }
  if (difference === 0) return 0;
  return Math.sqrt(difference / (norm === 0 ? 1 : norm));
}

/** Rounds to what the dtype can hold, as a float64. */
export function roundTo(values: ArrayLike<number>, dtype: DType): Float64Array {
  if (dtype === 'f32') return Float64Array.from(Float32Array.from(values));
  if (dtype !== 'bf16') return Float64Array.from(values);
  const words = new Uint32Array(Float32Array.from(values).buffer);
  const rounded = words.map((w) => (((w + 0x7fff + ((w >>> 16) & 1)) >>> 16) << 16) >>> 0);
  return Float64Array.from(new Float32Array(rounded.buffer));
}

export async function numbers(x: Tensor): Promise<Float64Array> {
  return Float64Array.from(await x.data(), Number);
}

export async function assertClose(
  t: ExecutionContext,
  actual: Tensor,
  expected: NdArray,
  tolerance: number,
  what: string,
): Promise<void> {
  t.deepEqual([...actual.shape], [...expected.shape], `${what}: shape`);
  const error = relativeError(await numbers(actual), expected.data);
  t.true(error <= tolerance, `${what}: relative error ${error} above ${tolerance}`);
}

import { createRandom } from '../../lib/data/random.js';
import type { FloatDType } from '../../lib/native/binding.js';
import { tensor, type Tensor } from '../../lib/tensor.js';
import { benchDevice } from './device.js';

/** Numbers repeat after so many, a prime: drawing each of a hundred million would take most of the time. */
const PERIOD = 1_000_003;

/** Random numbers of [-width, width). */
export function uniform(shape: readonly number[], dtype: FloatDType, width: number): Tensor {
  const random = createRandom(shape.length);
  const numel = shape.reduce((a, b) => a * b, 1);
  const period = Float32Array.from(
    { length: Math.min(numel, PERIOD) },
    () => (2 * random.next() - 1) * width,
  );
  const values = new Float32Array(numel);
  for (let i = 0; i < numel; i += PERIOD) values.set(period.subarray(0, numel - i), i);
  return tensor(values, { shape, dtype, device: benchDevice });
}

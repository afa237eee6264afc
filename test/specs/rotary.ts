import type { CaseSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { rotary } from '../../lib/autograd/rotary.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/rotary.js';

function rotation(
  name: string,
  shape: readonly [B: number, T: number, H: number, C: number],
  { rotaryDim = shape[3], base = 10000, first = 0 } = {},
): CaseSpec {
  const [B, T, H, C] = shape;
  const positions = Int32Array.from({ length: B * T }, (_, n) => first + (n % T) - Math.floor(n / T));
  return {
    name,
    inputs: { x: { shape }, positions: { shape: [B, T], values: positions, dtype: 'i32' } },
    slack: 4,
    run: ({ x, positions }) => rotary(x as Tensor, positions as Tensor, { rotaryDim, base }),
    reference: ({ x }) => ({
      data: reference.rotary((x as NdArray).data, positions, { H, C, rotaryDim, base }),
      shape,
    }),
  };
}

export const spec: OpSpec = {
  op: 'rotary',
  cases: [
    rotation('all channels', [2, 9, 3, 16]),
    rotation('some channels, another base', [1, 7, 2, 13], { rotaryDim: 6, base: 500 }),
    // In f64 the last bit of the frequencies, times the position, is far above the tolerance.
    { ...rotation('far positions', [1, 40, 8, 64], { first: 100000 }), dtypes: ['f32', 'bf16'] },
    rotation('no channels', [1, 3, 1, 5], { rotaryDim: 0 }),
    rotation('no tokens', [0, 4, 2, 8]),
  ],
};

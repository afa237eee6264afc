import { l2Normalize } from '../../lib/autograd/l2_normalize.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/l2_normalize.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

function normalised(shape: readonly number[], scale = 1): CaseSpec {
  return {
    name: `[${shape.join(', ')}] scale ${scale}`,
    inputs: { x: { shape, scale } },
    slack: 8,
    run: ({ x }) => l2Normalize(x as Tensor),
    reference: ({ x }) => ({
      data: reference.l2Normalize((x as NdArray).data, shape.at(-1) as number),
      shape,
    }),
  };
}

export const spec: OpSpec = {
  op: 'l2_normalize',
  cases: [
    normalised([5, 33]),
    normalised([2, 3, 16], 30),
    normalised([1, 2]),
    normalised([0, 8]),
    normalised([17]),
    normalised([40, 515]),
  ],
  cost: ({ x }) => {
    const numel = (x as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 3 * numel, bytes: 8 * numel };
  },
};

import { linearCrossEntropy } from '../../lib/autograd/linear_cross_entropy.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/linear_cross_entropy.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import { labelValues } from './cross_entropy.js';

function head(
  name: string,
  rows: readonly number[],
  { V, D, ignored = 0 }: { V: number; D: number; ignored?: number },
): CaseSpec {
  const N = rows.reduce((a, b) => a * b, 1);
  return {
    name,
    inputs: {
      x: { shape: [...rows, D] },
      weight: { shape: [V, D], scale: 1 / Math.sqrt(D) },
      labels: { shape: rows, values: labelValues(N, V, ignored), dtype: 'i32' },
    },
    run: ({ x, weight, labels }) => linearCrossEntropy(x as Tensor, weight as Tensor, labels as Tensor),
    reference: ({ x, weight, labels }) => ({
      data: [
        reference.linearCrossEntropy(
          {
            x: (x as NdArray).data,
            weight: (weight as NdArray).data,
            labels: (labels as NdArray).data,
          },
          V,
          D,
        ),
      ],
      shape: [],
    }),
  };
}

export const spec: OpSpec = {
  op: 'linear_cross_entropy',
  cases: [
    head('a batch', [2, 9], { V: 33, D: 17 }),
    head('some labels ignored', [21], { V: 70, D: 32, ignored: 4 }),
    head('all labels ignored', [5], { V: 9, D: 8, ignored: 10 }),
    head('one row', [1], { V: 5, D: 3 }),
    head('no rows', [0], { V: 5, D: 3 }),
    head('several chunks of rows', [600], { V: 37, D: 20, ignored: 2 }),
  ],
  cost: ({ x, weight }) => {
    const rows = (x as InputSpec).shape.slice(0, -1).reduce((a, b) => a * b, 1);
    const numel = (weight as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 6 * rows * numel, bytes: 8 * numel };
  },
};

import { crossEntropy } from '../../lib/autograd/cross_entropy.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/cross_entropy.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

/** `ignored` of every ten labels are -100, in a row. */
export function labelValues(count: number, V: number, ignored: number): Float64Array {
  const next = generator(11);
  return Float64Array.from({ length: count }, (_, n) => (n % 10 < ignored ? -100 : Math.floor(next() * V)));
}

function loss(
  name: string,
  shape: readonly number[],
  { ignored = 0, dtype = 'i32', scale = 2 }: { ignored?: number; dtype?: 'i32' | 'i64'; scale?: number } = {},
): CaseSpec {
  const V = shape.at(-1) as number;
  const rows = shape.slice(0, -1);
  const values = labelValues(
    rows.reduce((a, b) => a * b, 1),
    V,
    ignored,
  );
  return {
    name,
    inputs: { logits: { shape, scale }, labels: { shape: rows, values, dtype } },
    slack: 16,
    run: ({ logits, labels }) => crossEntropy(logits as Tensor, labels as Tensor),
    reference: ({ logits, labels }) => ({
      data: [reference.crossEntropy((logits as NdArray).data, (labels as NdArray).data, V)],
      shape: [],
    }),
  };
}

export const spec: OpSpec = {
  op: 'cross_entropy',
  cases: [
    loss('a batch', [2, 7, 33]),
    loss('64-bit labels, some ignored', [25, 17], { ignored: 3, dtype: 'i64' }),
    loss('all labels ignored', [6, 9], { ignored: 10 }),
    loss('one row', [1, 5]),
    loss('one class', [4, 1]),
    loss('no rows', [0, 5]),
    loss('a wide vocabulary', [7, 5000], { ignored: 1, scale: 6 }),
    loss('many rows', [300, 101], { ignored: 2 }),
  ],
  cost: ({ logits }) => {
    const numel = (logits as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 5 * numel, bytes: 4 * numel };
  },
};

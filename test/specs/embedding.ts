import { embedding } from '../../lib/autograd/embedding.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/embedding.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

function lookup(
  name: string,
  { V, D, ids }: { V: number; D: number; ids: readonly number[] },
  dtype: 'i32' | 'i64' = 'i32',
): CaseSpec {
  const numel = ids.reduce((a, b) => a * b, 1);
  const next = generator(3);
  const values = Float64Array.from({ length: numel }, () => Math.floor(next() * V));
  return {
    name,
    inputs: { weight: { shape: [V, D] }, ids: { shape: ids, values, dtype } },
    slack: 4,
    run: (inputs) => embedding(inputs['weight'] as Tensor, inputs['ids'] as Tensor),
    reference: (inputs) => ({
      data: reference.embedding((inputs['weight'] as NdArray).data, (inputs['ids'] as NdArray).data, D),
      shape: [...ids, D],
    }),
  };
}

export const spec: OpSpec = {
  op: 'embedding',
  cases: [
    lookup('a batch', { V: 50, D: 33, ids: [3, 7] }),
    lookup('64-bit ids', { V: 50, D: 16, ids: [20] }, 'i64'),
    lookup('one id many times', { V: 1, D: 300, ids: [90] }),
    lookup('one token', { V: 9, D: 1, ids: [1] }),
    lookup('no tokens', { V: 9, D: 8, ids: [2, 0] }),
    lookup('many tokens', { V: 700, D: 65, ids: [4, 130] }),
  ],
  cost: ({ ids, weight }) => {
    const numel =
      (ids as InputSpec).shape.reduce((a, b) => a * b, 1) * ((weight as InputSpec).shape[1] as number);
    return { flops: 0, bytes: 8 * numel };
  },
};

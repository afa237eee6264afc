import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { combine } from '../../lib/autograd/combine.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/combine.js';

function combination(name: string, N: number, K: number, D: number, gated = true): CaseSpec {
  const inputs: Record<string, InputSpec> = { y: { shape: [N * K, D] } };
  if (gated) inputs['gates'] = { shape: [N, K], dtype: 'acc', scale: 0.5 };
  return {
    name,
    inputs,
    slack: 4,
    run: (tensors) => combine(tensors['y'] as Tensor, tensors['gates'] ?? null, K),
    reference: (arrays) => ({
      data: reference.combine((arrays['y'] as NdArray).data, arrays['gates']?.data ?? null, { N, K, D }),
      shape: [N, D],
    }),
  };
}

export const spec: OpSpec = {
  op: 'combine',
  cases: [
    combination('two experts', 12, 2, 32),
    combination('one expert', 5, 1, 16),
    combination('four experts, odd width', 7, 4, 301),
    combination('without gates', 6, 2, 24, false),
    combination('one token', 1, 3, 1),
    combination('no tokens', 0, 2, 8),
    combination('many tokens', 90, 2, 257),
  ],
  cost: ({ y }) => {
    const numel = (y as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 2 * numel, bytes: 6 * numel };
  },
};

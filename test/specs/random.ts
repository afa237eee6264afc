import { dropout } from '../../lib/autograd/random.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/random.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

function dropped(shape: readonly number[], p: number, seed: number, stream: number): CaseSpec {
  return {
    name: `dropout ${p} of [${shape.join(', ')}], seed ${seed}, stream ${stream}`,
    inputs: { x: { shape } },
    slack: 4,
    run: ({ x }) => dropout(x as Tensor, p, [seed, stream]),
    reference: ({ x }) => ({ data: reference.dropout((x as NdArray).data, p, { seed, stream }), shape }),
  };
}

export const spec: OpSpec = {
  op: 'random',
  cases: [
    dropped([5, 33], 0.5, 0, 0),
    dropped([5, 33], 0.1, 2 ** 53 - 1, 2 ** 40 + 7),
    dropped([0, 4], 0.1, 1, 2),
    dropped([1], 0, 1, 2),
    dropped([9], 1, 1, 2),
    dropped([2, 8200], 0.25, 7, 3),
  ],
  cost: ({ x }) => {
    const numel = (x as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 0, bytes: 8 * numel };
  },
};

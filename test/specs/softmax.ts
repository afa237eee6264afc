import { logSoftmax, softmax } from '../../lib/autograd/softmax.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/softmax.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

function rows(shape: readonly number[], log: boolean, scale = 2): CaseSpec {
  return {
    name: `${log ? 'logSoftmax' : 'softmax'} [${shape.join(', ')}] scale ${scale}`,
    inputs: { x: { shape, scale } },
    slack: 16,
    run: ({ x }) => (log ? logSoftmax : softmax)(x as Tensor),
    reference: ({ x }) => {
      const data = reference.logSoftmax((x as NdArray).data, shape.at(-1) as number);
      return { data: log ? data : data.map(Math.exp), shape };
    },
  };
}

export const spec: OpSpec = {
  op: 'softmax',
  cases: [false, true].flatMap((log) => [
    rows([5, 32], log),
    rows([2, 3, 17], log, 8),
    rows([4, 1], log),
    rows([0, 8], log),
    rows([9], log),
    rows([20, 900], log),
  ]),
  cost: ({ x }) => {
    const numel = (x as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 5 * numel, bytes: 8 * numel };
  },
};

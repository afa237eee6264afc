import * as ops from '../../lib/autograd/reduce.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/reduce.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, OpSpec } from '../support/spec.js';

function sum(shape: readonly number[], dim: number): CaseSpec {
  return {
    name: `sum of [${shape.join(', ')}] over ${dim}`,
    inputs: { x: { shape } },
    slack: 8,
    run: ({ x }) => ops.sum(x as Tensor, dim),
    reference: ({ x }) => reference.sum(x as NdArray, dim < 0 ? dim + shape.length : dim),
  };
}

function total(name: 'sum' | 'mean' | 'sumRows', shape: readonly number[]): CaseSpec {
  const rows = name === 'sumRows';
  return {
    name: `${name} of all [${shape.join(', ')}]`,
    inputs: { x: { shape } },
    // A sum of numbers of both signs cancels, and with it the norm that the error is relative to.
    slack: 64,
    run: ({ x }) => ops[name](x as Tensor),
    reference: ({ x }) => {
      const { data, shape: left } = reference.sum(reference.flatten(x as NdArray, rows), 0);
      const count = name === 'mean' ? (x as NdArray).data.length : 1;
      return { data: Array.from(data, (v) => v / count), shape: left };
    },
  };
}

function rows(shape: readonly number[]): CaseSpec[] {
  return [
    {
      name: `mulRows [${shape.join(', ')}]`,
      inputs: { x: { shape }, s: { shape: shape.slice(0, -1), dtype: 'acc' } },
      slack: 8,
      run: ({ x, s }) => ops.mulRows(x as Tensor, s as Tensor),
      reference: ({ x, s }) => reference.mulRows(x as NdArray, s as NdArray),
    },
    {
      name: `rowDot [${shape.join(', ')}]`,
      inputs: { a: { shape }, b: { shape } },
      slack: 8,
      run: ({ a, b }) => ops.rowDot(a as Tensor, b as Tensor),
      reference: ({ a, b }) => reference.rowDot(a as NdArray, b as NdArray),
    },
  ];
}

export const spec: OpSpec = {
  op: 'reduce',
  cases: [
    sum([5, 33], 1),
    sum([5, 33], 0),
    sum([3, 70, 9], 1),
    sum([2, 3, 1300], -1),
    sum([1, 70, 515], 1),
    sum([3, 0, 4], 1),
    sum([0, 4], 1),
    total('sum', [3, 5, 7]),
    total('sum', [20000]),
    total('sum', []),
    total('mean', [3, 11]),
    total('sumRows', [300, 65]),
    total('sumRows', [2, 3, 8]),
    total('sumRows', [0, 8]),
    ...rows([9, 33]),
    ...rows([2, 3, 16]),
    ...rows([40, 515]),
    ...rows([0, 8]),
    ...rows([12]),
  ],
  cost: (inputs) => {
    const numel = Object.values(inputs).reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
    return { flops: numel, bytes: 4 * numel };
  },
};

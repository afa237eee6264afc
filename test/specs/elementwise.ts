import * as ops from '../../lib/autograd/elementwise.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/elementwise.js';
import type { NdArray } from '../support/compare.js';
import { normals } from '../support/random.js';
import type { CaseSpec, OpSpec } from '../support/spec.js';

type UnaryName = keyof typeof reference.unary;
type BinaryName = keyof typeof reference.binary;

const numelOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Numbers of both signs, at least 0.25 from 0: away from kinks and poles. */
const awayFromZero = (shape: readonly number[], seed: number): Float64Array =>
  normals(seed, numelOf(shape)).map((x) => x + (x < 0 ? -0.25 : 0.25));

const positive = (shape: readonly number[]): Float64Array => awayFromZero(shape, 5).map(Math.abs);

function valuesOf(name: UnaryName, shape: readonly number[]): ArrayLike<number> | undefined {
  if (name === 'log' || name === 'sqrt') return positive(shape);
  return name === 'relu' || name === 'abs' ? awayFromZero(shape, 6) : undefined;
}

function unary(name: UnaryName, shape: readonly number[], scale = 2): CaseSpec {
  const values = valuesOf(name, shape);
  return {
    name: `${name} [${shape.join(', ')}] scale ${scale}`,
    inputs: { x: values ? { shape, values } : { shape, scale } },
    slack: 8,
    run: ({ x }) => ops[name](x as Tensor),
    reference: ({ x }) => ({ data: Array.from((x as NdArray).data, reference.unary[name]), shape }),
  };
}

function binary(name: BinaryName, shape: readonly number[], shapeB: readonly number[]): CaseSpec {
  return {
    name: `${name} [${shape.join(', ')}] and [${shapeB.join(', ')}]`,
    inputs: { a: { shape }, b: { shape: shapeB, values: awayFromZero(shapeB, 7) } },
    slack: 8,
    run: ({ a, b }) => ops[name](a as Tensor, b as Tensor),
    reference: ({ a, b }) => ({
      data: Array.from((a as NdArray).data, (x, i) =>
        reference.binary[name](x, (b as NdArray).data[i % (b as NdArray).data.length] as number),
      ),
      shape,
    }),
  };
}

const unaryNames = Object.keys(reference.unary) as UnaryName[];
const binaryNames = Object.keys(reference.binary) as BinaryName[];

export const spec: OpSpec = {
  op: 'elementwise',
  cases: [
    ...unaryNames.map((name) => unary(name, [7, 33])),
    ...unaryNames.filter((name) => !['exp', 'square'].includes(name)).map((name) => unary(name, [65], 8)),
    unary('geluNew', [3, 5500]),
    unary('silu', [0, 4]),
    unary('tanh', [200], 0.01),
    unary('softplus', []),
    ...binaryNames.flatMap((name) => [
      binary(name, [3, 5, 7], [3, 5, 7]),
      binary(name, [6, 5, 7], [5, 7]),
      binary(name, [9, 31], [31]),
      binary(name, [4, 5], [1]),
      binary(name, [4, 5], []),
      binary(name, [0, 5], [5]),
    ]),
    binary('mul', [40, 515], [515]),
    binary('add', [], [1]),
    {
      name: 'affine',
      inputs: { x: { shape: [3, 41] } },
      slack: 4,
      run: ({ x }) => ops.affine(x as Tensor, -1.5, 0.25),
      reference: ({ x }) => ({
        data: Array.from((x as NdArray).data, (v) => -1.5 * v + 0.25),
        shape: [3, 41],
      }),
    },
    {
      name: 'cast to f32 and back',
      inputs: { x: { shape: [5, 9] } },
      slack: 2 ** 30,
      dtypes: ['f64'],
      gradient: false,
      run: ({ x }) => ops.cast(ops.cast(x as Tensor, 'f32'), 'f64'),
      reference: ({ x }) => ({ data: Float32Array.from((x as NdArray).data), shape: [5, 9] }),
    },
    {
      name: 'cast to f64',
      inputs: { x: { shape: [5, 9] } },
      run: ({ x }) => ops.cast(x as Tensor, 'f64'),
      reference: ({ x }) => ({ data: (x as NdArray).data, shape: [5, 9] }),
    },
  ],
  cost: (inputs) => {
    const [first, ...others] = Object.values(inputs).map(({ shape }) => numelOf(shape));
    return {
      flops: first as number,
      bytes: [first as number, first as number, ...others].reduce((a, b) => a + 4 * b, 0),
    };
  },
};

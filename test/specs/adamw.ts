import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { normals } from '../support/random.js';
import { adamWStep, type AdamWEntry, type AdamWFactors } from '../../lib/autograd/adamw.js';
import { tensor, type Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/adamw.js';

/** Standard deviation of each step's gradient. */
const scales = [1, 0.01, 3];

/** Three steps on tensors of the given lengths; a bf16 parameter has its f32 master with the unrounded values. */
function steps(name: string, lengths: readonly number[], factors: AdamWFactors): CaseSpec {
  const inputs: Record<string, InputSpec> = {};
  lengths.forEach((length, i) => {
    const values = normals(500 + i, length);
    inputs[`w${i}`] = { shape: [length], values };
    inputs[`master${i}`] = { shape: [length], values, dtype: 'acc' };
    scales.forEach((scale, s) => (inputs[`g${i}.${s}`] = { shape: [length], scale }));
  });
  return {
    name,
    gradient: false,
    slack: 4,
    inputs,
    run: run(lengths, factors),
    reference: expected(lengths, factors),
  };
}

function run(lengths: readonly number[], factors: AdamWFactors): CaseSpec['run'] {
  return (tensors) => {
    const entries = lengths.map((length, i): Omit<AdamWEntry, 'gradient'> => {
      const parameter = tensors[`w${i}`] as Tensor;
      const zeros = (): Tensor =>
        tensor(new Float64Array(length), {
          dtype: parameter.dtype === 'f64' ? 'f64' : 'f32',
          device: parameter.device,
        });
      const master = parameter.dtype === 'bf16' ? (tensors[`master${i}`] as Tensor) : null;
      return {
        parameter,
        master,
        m: zeros(),
        v: zeros(),
        step: tensor([0], { dtype: 'i32', device: parameter.device }),
      };
    });
    scales.forEach((_, s) => {
      adamWStep(
        entries.map((entry, i) => ({ ...entry, gradient: tensors[`g${i}.${s}`] as Tensor })),
        factors,
      );
    });
    return entries.flatMap(({ parameter, m, v, step }) => [parameter, m, v, step]);
  };
}

function expected(lengths: readonly number[], factors: AdamWFactors): CaseSpec['reference'] {
  return (arrays) =>
    lengths.flatMap((length, i): NdArray[] => {
      const w = Float64Array.from((arrays[`master${i}`] as NdArray).data);
      const state = { w, m: new Float64Array(length), v: new Float64Array(length), step: 0 };
      scales.forEach((_, s) => reference.adamW(state, (arrays[`g${i}.${s}`] as NdArray).data, factors));
      const shape = [length];
      return [
        { data: w, shape },
        { data: state.m, shape },
        { data: state.v, shape },
        { data: [state.step], shape: [1] },
      ];
    });
}

export const spec: OpSpec = {
  op: 'adamW',
  cases: [
    steps('several tensors', [100, 1, 37], { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 }),
    steps('no decay, large eps', [64], { lr: 0.3, betas: [0.5, 0.999], eps: 1e-2, weightDecay: 0 }),
    steps('several blocks, an empty tensor', [65536 + 3, 0, 70001], {
      lr: 1e-3,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weightDecay: 0.01,
    }),
  ],
  cost: (inputs) => {
    const numel = Object.entries(inputs)
      .filter(([key]) => key.startsWith('w'))
      .reduce((sum, [, { shape }]) => sum + (shape[0] as number), 0);
    return { flops: 14 * numel, bytes: 28 * numel };
  },
};

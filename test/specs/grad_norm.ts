import type { CaseSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { clipGradients, gradNorm } from '../../lib/autograd/grad_norm.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/grad_norm.js';

/** Tensors of these sizes; a block of the kernel has 65536 elements. */
function sizes(
  name: string,
  lengths: readonly number[],
  maxNorm: number,
  extra: Partial<CaseSpec> = { slack: 4 },
): CaseSpec {
  const names = lengths.map((_, i) => `g${i}`);
  return {
    name,
    gradient: false,
    ...extra,
    inputs: Object.fromEntries(names.map((key, i) => [key, { shape: [lengths[i] as number] }])),
    run: (tensors) => {
      const all = names.map((key) => tensors[key] as Tensor);
      const { norm, finite } = gradNorm(all);
      clipGradients(all, norm, maxNorm);
      return [norm, finite, ...all];
    },
    reference: (arrays) => {
      const all = names.map((key) => (arrays[key] as NdArray).data);
      const norm = reference.gradNorm(all);
      const factor = reference.clipFactor(norm, maxNorm);
      return [
        { data: [norm], shape: [1] },
        { data: [1], shape: [1] },
        ...all.map((g) => ({ data: Array.from(g, (x) => x * factor), shape: [g.length] })),
      ];
    },
  };
}

export const spec: OpSpec = {
  op: 'gradNorm',
  cases: [
    sizes('clipped', [100, 7, 33], 0.5),
    sizes('below the limit', [100, 7], 1e6),
    // The oracle's sum, one by one, is the less exact of the two.
    sizes('several blocks, an empty tensor', [65536 + 5, 0, 70000], 1, {
      slack: 256,
      dtypes: ['f64', 'f32'],
    }),
  ],
  cost: (inputs) => {
    const numel = Object.values(inputs).reduce((sum, { shape }) => sum + (shape[0] as number), 0);
    return { flops: 3 * numel, bytes: 12 * numel };
  },
};

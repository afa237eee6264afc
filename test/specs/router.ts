import type { OpSpec, CaseSpec, InputSpec } from '../support/spec.js';
import { generator, spacedRows } from '../support/random.js';
import { gatherGates, routerTopK, routeTo } from '../../lib/autograd/router.js';
import type { RoutingPlan } from '../../lib/autograd/routing_plan.js';
import type { Tensor } from '../../lib/tensor.js';
import type { NdArray } from '../support/compare.js';
import * as reference from '../reference/router.js';

const key = { seed: 17n, stream: 5n };

/** Positive numbers, not normalised: the op takes them as they are. With `levels`, many are equal. */
function probabilities(N: number, E: number, levels?: number): InputSpec {
  const next = generator(N * 31 + E);
  const values = levels
    ? Float64Array.from({ length: N * E }, () => Math.ceil(next() * levels) / levels)
    : spacedRows(N * 31 + E, N, E);
  return { shape: [N, E], values, dtype: 'acc' };
}

const planTensors = ({ order, inverse, offsets }: RoutingPlan): Tensor[] => [order, inverse, offsets];

function planArrays(experts: Int32Array, E: number): NdArray[] {
  const { order, inverse, offsets } = reference.routePlan(experts, E);
  return [order, inverse, offsets].map((data) => ({ data, shape: [data.length] }));
}

function topK(
  name: string,
  N: number,
  E: number,
  K: number,
  { sample = 0, levels, gradient }: { sample?: number; levels?: number; gradient?: boolean } = {},
): CaseSpec {
  return {
    name,
    dtypes: ['f64', 'f32'],
    inputs: { probs: probabilities(N, E, levels) },
    // Where values tie, a difference would change the choice.
    gradient: gradient ?? levels === undefined,
    differentiable: [false, true, false, false, false],
    run: ({ probs }) => {
      const { plan, gates } = routerTopK(probs as Tensor, {
        k: K,
        sample,
        key: [Number(key.seed), Number(key.stream)],
      });
      return [plan.experts, gates, ...planTensors(plan)];
    },
    reference: ({ probs }) => {
      const { experts, gates } = reference.route((probs as NdArray).data, { N, E, K, sample, key });
      return [{ data: experts, shape: [N, K] }, { data: gates, shape: [N, K] }, ...planArrays(experts, E)];
    },
  };
}

/** An expert twice for a token: its gradients add up. */
const recorded = Int32Array.from([3, 0, 1, 1, 0, 2, 3, 3]);

export const spec: OpSpec = {
  op: 'router',
  cases: [
    topK('two of eight', 40, 8, 2),
    topK('ties', 60, 7, 3, { levels: 4 }),
    topK('all experts', 9, 5, 5),
    topK('one expert', 3, 1, 1),
    topK('no tokens', 0, 4, 2),
    topK('many rows', 1100, 33, 2),
    // CUDA counts the rows of each expert in a launch of its own.
    topK('more than 2^14 rows', 8200, 3, 2, { gradient: false }),
    topK('one of three drawn', 50, 6, 3, { sample: 1 }),
    topK('all drawn', 30, 4, 4, { sample: 4 }),
    {
      name: 'recorded experts',
      dtypes: ['f64', 'f32'],
      inputs: {
        probs: probabilities(4, 5),
        experts: { shape: [4, 2], values: recorded, dtype: 'i32', grad: false },
      },
      differentiable: [true, false, false, false],
      run: ({ probs, experts }) => {
        const { plan, gates } = routeTo(probs as Tensor, experts as Tensor);
        return [gates, ...planTensors(plan)];
      },
      reference: ({ probs }) => [
        {
          data: reference.gatherGates((probs as NdArray).data, recorded, { N: 4, E: 5, K: 2 }),
          shape: [4, 2],
        },
        ...planArrays(recorded, 5),
      ],
    },
    {
      name: 'gather alone',
      dtypes: ['f64', 'f32'],
      inputs: {
        probs: probabilities(4, 5),
        experts: { shape: [4, 2], values: recorded, dtype: 'i32', grad: false },
      },
      run: ({ probs, experts }) => gatherGates(probs as Tensor, experts as Tensor),
      reference: ({ probs }) => ({
        data: reference.gatherGates((probs as NdArray).data, recorded, { N: 4, E: 5, K: 2 }),
        shape: [4, 2],
      }),
    },
  ],
  cost: ({ probs }) => {
    const numel = (probs as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: numel, bytes: 4 * numel };
  },
};

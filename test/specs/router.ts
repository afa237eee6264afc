import type { OpSpec, CaseSpec, InputSpec } from '../support/spec.js';
import { generator, spacedRows } from '../support/random.js';
import { gatherGates, routerTopK, routeTo } from '../../lib/autograd/router.js';
import { RoutingPlan } from '../../lib/autograd/routing_plan.js';
import type { Tensor } from '../../lib/tensor.js';
import type { NdArray } from '../support/compare.js';
import * as reference from '../reference/router.js';
import { softmaxRows } from '../reference/softmax.js';

const key = { seed: 17n, stream: 5n };

/** Positive numbers, not normalised: as logits or as probabilities. With `levels`, many are equal. */
function scores(N: number, E: number, levels?: number): InputSpec {
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
    inputs: { logits: scores(N, E, levels) },
    // Where values tie, a difference would change the choice.
    gradient: gradient ?? levels === undefined,
    differentiable: [false, true, true, false, false, false],
    run: ({ logits }) => {
      const { plan, gates, probs } = routerTopK(logits as Tensor, {
        k: K,
        sample,
        key: [Number(key.seed), Number(key.stream)],
      });
      return [plan.experts, gates, probs, ...planTensors(plan)];
    },
    reference: ({ logits }) => {
      const probs = softmaxRows((logits as NdArray).data, E);
      const { experts, gates } = reference.route(probs, { N, E, K, sample, key });
      return [
        { data: experts, shape: [N, K] },
        { data: gates, shape: [N, K] },
        { data: probs, shape: [N, E] },
        ...planArrays(experts, E),
      ];
    },
  };
}

/** A plan alone, of given experts. */
function plan(name: string, N: number, E: number, K: number): CaseSpec {
  const next = generator(N + E);
  const experts = Int32Array.from({ length: N * K }, () => Math.floor(next() * E));
  return {
    name,
    dtypes: ['f32'],
    inputs: { experts: { shape: [N, K], values: experts, dtype: 'i32', grad: false } },
    gradient: false,
    run: ({ experts }) => planTensors(new RoutingPlan(experts as Tensor, experts as Tensor, E)),
    reference: () => planArrays(experts, E),
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
    // On CUDA a block of its own beside the last, and blocks of more rows than threads.
    topK('257 tokens of one expert each', 257, 4, 1, { gradient: false }),
    topK('more experts than threads', 300, 270, 5, { gradient: false }),
    topK('one of three drawn', 50, 6, 3, { sample: 1 }),
    topK('all drawn', 30, 4, 4, { sample: 4 }),
    plan('a plan of many rows', 70000, 5, 2),
    plan('a plan of one token', 1, 300, 3),
    plan('a plan without rows', 0, 3, 2),
    {
      name: 'recorded experts',
      dtypes: ['f64', 'f32'],
      inputs: {
        probs: scores(4, 5),
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
        probs: scores(4, 5),
        experts: { shape: [4, 2], values: recorded, dtype: 'i32', grad: false },
      },
      run: ({ probs, experts }) => gatherGates(probs as Tensor, experts as Tensor),
      reference: ({ probs }) => ({
        data: reference.gatherGates((probs as NdArray).data, recorded, { N: 4, E: 5, K: 2 }),
        shape: [4, 2],
      }),
    },
  ],
  cost: (inputs) => {
    const numel = (Object.values(inputs)[0] as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: numel, bytes: 4 * numel };
  },
};

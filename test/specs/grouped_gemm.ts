import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import {
  expertMlp,
  groupedGemm,
  linear,
  type Activation,
  type GroupedGemmOptions,
} from '../../lib/autograd/grouped_gemm.js';
import { RoutingPlan } from '../../lib/autograd/routing_plan.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/grouped_gemm.js';

interface Sizes {
  N: number;
  K: number;
  E: number;
  width: number;
  out: number;
}

/** [N, K] experts, the first ones far more often; or all rows on one expert. */
function expertsInput({ N, K, E }: Sizes, only?: number): InputSpec {
  const next = generator(7 * N + E);
  const values = Int32Array.from({ length: N * K }, () => only ?? Math.floor(E * next() ** 3));
  return { shape: [N, K], values, dtype: 'i32', grad: false };
}

// The gates of the plan play no part here.
const planOf = (experts: Tensor, E: number): RoutingPlan => new RoutingPlan(experts, experts, E);

function grouped(
  name: string,
  sizes: Sizes,
  options: Partial<GroupedGemmOptions> = {},
  { only, ...rest }: Partial<CaseSpec> & { only?: number } = {},
): CaseSpec {
  const { N, K, E, width, out } = sizes;
  const { inputRows = 'slot', outputRows = 'slot' } = options;
  const { activation } = options;
  return {
    name,
    inputs: {
      x: { shape: [inputRows === 'token' ? N : N * K, width] },
      w: { shape: [E, width, out], scale: 1 / Math.sqrt(width) },
      experts: expertsInput(sizes, only),
    },
    run: ({ x, w, experts }) =>
      groupedGemm(x as Tensor, w as Tensor, planOf(experts as Tensor, E), {
        inputRows,
        outputRows,
        ...options,
      }),
    reference: ({ x, w, experts }) => {
      const chosen = (experts as NdArray).data;
      const order = reference.sortedOrder(chosen);
      const place = new Map(order.map((slot, sorted) => [slot, sorted]));
      const source = {
        token: (r: number) => Math.floor(r / K),
        slot: (r: number) => r,
        sorted: (r: number) => place.get(r) as number,
      };
      const rows = reference.expertRows(
        (x as NdArray).data,
        (w as NdArray).data,
        chosen,
        { width, out },
        source[inputRows],
      );
      const f = activation ? reference.activations[activation] : (value: number) => value;
      const data =
        outputRows === 'slot'
          ? rows
          : Float64Array.from(order.flatMap((slot) => [...rows.subarray(slot * out, (slot + 1) * out)]));
      return { data: data.map(f), shape: [N * K, out] };
    },
    ...rest,
  };
}

function dense(
  name: string,
  lead: number[],
  width: number,
  out: number,
  {
    bias = false,
    wide = false,
    activation,
  }: { bias?: boolean; wide?: boolean; activation?: Activation } = {},
): CaseSpec {
  const inputs: Record<string, InputSpec> = {
    x: { shape: [...lead, width] },
    weight: { shape: [out, width], scale: 1 / Math.sqrt(width) },
  };
  if (bias) inputs['bias'] = { shape: [out] };
  const N = lead.reduce((a, b) => a * b, 1);
  return {
    name,
    inputs,
    run: ({ x, weight, bias }) =>
      linear(x as Tensor, weight as Tensor, bias ?? null, {
        ...(activation && { activation }),
        ...(wide && x?.dtype === 'bf16' && { outputDType: 'f32' }),
      }),
    reference: ({ x, weight, bias }) => {
      const sizes = { N, width, out };
      const y = reference.linear((x as NdArray).data, (weight as NdArray).data, bias?.data ?? null, sizes);
      return { data: activation ? y.map(reference.activations[activation]) : y, shape: [...lead, out] };
    },
  };
}

function mlp(name: string, sizes: Sizes, activation: Activation): CaseSpec {
  const { N, K, E, width: D, out: F } = sizes;
  return {
    name,
    inputs: {
      x: { shape: [N, D] },
      w1: { shape: [E, D, F], scale: 1 / Math.sqrt(D) },
      w2: { shape: [E, F, D], scale: 1 / Math.sqrt(F) },
      experts: expertsInput(sizes),
    },
    run: ({ x, w1, w2, experts }) =>
      expertMlp(x as Tensor, w1 as Tensor, w2 as Tensor, planOf(experts as Tensor, E), activation),
    reference: ({ x, w1, w2, experts }) => {
      const chosen = (experts as NdArray).data;
      const token = (r: number) => Math.floor(r / K);
      const hidden = reference
        .expertRows((x as NdArray).data, (w1 as NdArray).data, chosen, { width: D, out: F }, token)
        .map(reference.activations[activation]);
      const data = reference.expertRows(hidden, (w2 as NdArray).data, chosen, { width: F, out: D });
      return { data, shape: [N * K, D] };
    },
  };
}

export const spec: OpSpec = {
  op: 'grouped_gemm',
  cases: [
    grouped('slot rows', { N: 40, K: 2, E: 4, width: 24, out: 40 }),
    grouped(
      'token rows to sorted',
      { N: 33, K: 2, E: 3, width: 33, out: 17 },
      { inputRows: 'token', outputRows: 'sorted' },
    ),
    grouped('sorted to slot rows', { N: 20, K: 3, E: 5, width: 16, out: 70 }, { inputRows: 'sorted' }),
    grouped(
      'sorted rows',
      { N: 9, K: 1, E: 2, width: 5, out: 3 },
      { inputRows: 'sorted', outputRows: 'sorted' },
    ),
    grouped('few rows per expert', { N: 6, K: 2, E: 6, width: 65, out: 130 }, { inputRows: 'token' }),
    // A megabyte of weights and more per expert is read in parts, whose sums are added.
    grouped(
      'few rows, weights in parts',
      { N: 4, K: 1, E: 2, width: 521, out: 1100 },
      {},
      { dtypes: ['f32', 'bf16'], gradient: false },
    ),
    grouped('one expert has all rows', { N: 50, K: 2, E: 4, width: 20, out: 33 }, {}, { only: 3 }),
    grouped('one row', { N: 1, K: 1, E: 3, width: 1, out: 1 }),
    grouped('no rows', { N: 0, K: 2, E: 3, width: 8, out: 8 }),
    // Two passes over the summed dimension, or over the rows for the weight gradient; differences would take too long.
    grouped('long sums', { N: 1100, K: 1, E: 2, width: 30, out: 10 }, {}, { dtypes: ['f32', 'bf16'] }),
    grouped('wide rows', { N: 20, K: 1, E: 1, width: 2100, out: 70 }, {}, { dtypes: ['f32', 'bf16'] }),
    // Whole panels of weights, which the CPU packs ahead, over several passes and blocks of columns.
    grouped('whole panels', { N: 75, K: 1, E: 3, width: 2112, out: 256 }, {}, { dtypes: ['f32', 'bf16'] }),
    // More tiles than the blocks of a device with few multiprocessors, wider than the widest tile.
    grouped('many tiles', { N: 140, K: 2, E: 3, width: 40, out: 300 }, {}, { dtypes: ['f32', 'bf16'] }),
    // The same of rows that begin at multiples of 16 bytes, with a depth that no stage divides.
    grouped(
      'many tiles of whole vectors',
      { N: 140, K: 2, E: 3, width: 136, out: 328 },
      { inputRows: 'token', outputRows: 'sorted' },
      { dtypes: ['f32', 'bf16'] },
    ),
    grouped(
      'many tiles of sorted rows',
      { N: 200, K: 1, E: 4, width: 328, out: 72 },
      { inputRows: 'sorted' },
      { dtypes: ['f32', 'bf16'] },
    ),
    grouped('gelu', { N: 16, K: 2, E: 3, width: 12, out: 20 }, { activation: 'gelu' }),
    grouped(
      'geluNew',
      { N: 16, K: 2, E: 3, width: 12, out: 20 },
      { activation: 'geluNew', inputRows: 'token' },
    ),
    grouped('silu', { N: 16, K: 2, E: 3, width: 12, out: 20 }, { activation: 'silu', outputRows: 'sorted' }),
    grouped('relu', { N: 16, K: 2, E: 3, width: 12, out: 20 }, { activation: 'relu' }),
    dense('linear', [20], 48, 32),
    dense('linear with bias', [3, 7], 33, 65, { bias: true }),
    dense('linear, f32 out of bf16', [12], 31, 9, { bias: true, wide: true }),
    dense('linear with activation', [17], 20, 12, { bias: true, activation: 'gelu' }),
    {
      ...dense('linear of many tiles', [260], 24, 300, { bias: true, activation: 'gelu' }),
      dtypes: ['f32', 'bf16'],
    },
    {
      ...dense('linear of whole vectors', [260], 72, 264, { bias: true, activation: 'silu' }),
      dtypes: ['f32', 'bf16'],
    },
    dense('linear of one row', [1], 70, 130, { bias: true }),
    dense('linear of a vector', [], 10, 6, { bias: true }),
    dense('linear of no rows', [0, 4], 8, 3, { bias: true }),
    mlp('expert MLP', { N: 24, K: 2, E: 4, width: 20, out: 36 }, 'geluNew'),
    mlp('expert MLP with few rows', { N: 4, K: 2, E: 4, width: 16, out: 24 }, 'silu'),
  ],
  cost: ({ x, w }) => {
    const [rows, width] = (x as InputSpec).shape as [number, number];
    const [E, , out] = (w as InputSpec).shape as [number, number, number];
    return { flops: 2 * rows * width * out, bytes: 4 * (rows * (width + out) + E * width * out) };
  },
};

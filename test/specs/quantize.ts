import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import {
  quantizedGroupedGemm,
  quantizedLinear,
  quantizeWeight,
  RoutingPlan,
  type Activation,
  type GroupedGemmOptions,
} from '../../lib/autograd/index.js';
import type { Tensor } from '../../lib/tensor.js';
import * as grouped from '../reference/grouped_gemm.js';
import * as reference from '../reference/quantize.js';

const dtypes = ['f32', 'bf16'] as const;
const forwardOnly = { gradient: false, dtypes } as const;

/** Integers as a quantized weight has them, and scales of 2^-7: products are the same in f32 and f64. */
function weights(shape: readonly number[], groupSize: number): Record<'values' | 'scales', InputSpec> {
  const numel = shape.reduce((a, b) => a * b, 1);
  const next = generator(numel);
  const values = Int32Array.from({ length: numel }, () => Math.floor(255 * next()) - 127);
  const scales = Float64Array.from({ length: numel / groupSize }, () => (1 + Math.floor(4 * next())) / 512);
  const groups = [...shape.slice(0, -1), (shape.at(-1) as number) / groupSize];
  return {
    values: { shape, values, dtype: 'i8', grad: false },
    scales: { shape: groups, values: scales, dtype: 'f32', grad: false },
  };
}

const widened = ({ values, scales }: Record<string, NdArray>): Float64Array =>
  reference.dequantize(
    (values as NdArray).data,
    (scales as NdArray).data,
    (values as NdArray).data.length / (scales as NdArray).data.length,
  );

function dense(
  name: string,
  N: number,
  width: number,
  out: number,
  groupSize = 32,
  activation?: Activation,
): CaseSpec {
  return {
    name,
    inputs: { x: { shape: [N, width] }, ...weights([out, width], groupSize) },
    run: ({ x, values, scales }) =>
      quantizedLinear(
        x as Tensor,
        { values: values as Tensor, scales: scales as Tensor },
        activation ? { activation } : {},
      ),
    reference: (inputs) => {
      const y = grouped.linear((inputs['x'] as NdArray).data, widened(inputs), null, { N, width, out });
      return { data: activation ? y.map(grouped.activations[activation]) : y, shape: [N, out] };
    },
    ...forwardOnly,
  };
}

function routed(
  name: string,
  { N, K, E, width, out }: Record<'N' | 'K' | 'E' | 'width' | 'out', number>,
  inputRows: GroupedGemmOptions['inputRows'],
): CaseSpec {
  const next = generator(N + E);
  const experts = Int32Array.from({ length: N * K }, () => Math.floor(E * next() ** 2));
  return {
    name,
    inputs: {
      x: { shape: [inputRows === 'token' ? N : N * K, width] },
      ...weights([E, out, width], 32),
      experts: { shape: [N, K], values: experts, dtype: 'i32', grad: false },
    },
    run: ({ x, values, scales, experts }) =>
      quantizedGroupedGemm(
        x as Tensor,
        { values: values as Tensor, scales: scales as Tensor },
        new RoutingPlan(experts as Tensor, experts as Tensor, E),
        { inputRows, outputRows: 'slot' },
      ),
    reference: (inputs) => {
      // Its own inverse, with the widths exchanged: [E, out, in] as [E, in, out].
      const w = reference.inputsInnermost(widened(inputs), E, out, width);
      const chosen = (inputs['experts'] as NdArray).data;
      const source = inputRows === 'token' ? (row: number) => Math.floor(row / K) : (row: number) => row;
      const data = grouped.expertRows((inputs['x'] as NdArray).data, w, chosen, { width, out }, source);
      return { data, shape: [N * K, out] };
    },
    ...forwardOnly,
  };
}

function quantizing(
  name: string,
  shape: readonly [number, number, number],
  groupSize: number,
  transposed: boolean,
): CaseSpec {
  const [E, width, out] = shape;
  return {
    name,
    inputs: { w: { shape: transposed ? [E, out, width] : shape } },
    run: ({ w }) => quantizeWeight(w as Tensor, { groupSize, transposed }).scales,
    reference: ({ w }) => {
      const { data } = w as NdArray;
      const rows = transposed ? data : reference.inputsInnermost(data, E, width, out);
      const { scales } = reference.quantize(rows, E * out, width, groupSize);
      return { data: scales, shape: [E, out, width / groupSize] };
    },
    ...forwardOnly,
  };
}

export const spec: OpSpec = {
  op: 'quantize',
  cases: [
    quantizing('scales of [in, out]', [3, 64, 5], 32, false),
    quantizing('scales of [out, in]', [2, 128, 7], 64, true),
    dense('one row', 1, 64, 70),
    dense('few rows', 7, 128, 33, 64),
    dense('many rows', 40, 96, 67),
    dense('no rows', 0, 32, 4),
    dense('activation', 5, 64, 20, 32, 'geluNew'),
    routed('routed, few rows', { N: 5, K: 2, E: 4, width: 64, out: 70 }, 'token'),
    routed('routed, many rows', { N: 60, K: 2, E: 3, width: 32, out: 66 }, 'slot'),
  ],
};

import test, { type ExecutionContext } from 'ava';
import { scope } from '../../lib/scope.js';
import { native } from '../../lib/native/load.js';
import { tensor, type DType, type Tensor } from '../../lib/tensor.js';
import { backwardWeighted } from './objective.js';
import { assertClose, epsilon, numbers, relativeError, roundTo, type NdArray } from './compare.js';
import { testDevice } from './device.js';
import { generator, normals } from './random.js';

/** Where an input's values come from. Floating inputs are rounded to the dtype under test, for the oracle too. */
export interface InputSpec {
  shape: readonly number[];
  /** Normal numbers (default) of this standard deviation, or given values. */
  scale?: number;
  values?: ArrayLike<number>;
  /** A fixed dtype; default: the dtype under test. 'acc': f64 beside f64, else f32. */
  dtype?: DType | 'acc';
  /** Whether the gradient with respect to it is checked. Default: every floating input without a fixed integer dtype. */
  grad?: boolean;
}

export interface CaseSpec {
  name: string;
  inputs: Record<string, InputSpec>;
  /** The op, through its public function. */
  run: (inputs: Record<string, Tensor>) => Tensor | readonly Tensor[];
  /** The naive oracle in float64. */
  reference: (inputs: Record<string, NdArray>) => NdArray | readonly NdArray[];
  /** Which outputs a gradient flows from. Default: all. */
  differentiable?: readonly boolean[];
  /** Allowed multiple of the dtype's epsilon for the relative error of a whole tensor. Default 32. */
  slack?: number;
  /** False for ops without gradient. */
  gradient?: boolean;
  /** Inputs whose gradient is zero, of which computing it leaves rounding errors: these are compared with zero. */
  zeroGradients?: readonly string[];
  dtypes?: readonly ('f64' | 'f32' | 'bf16')[];
}

export interface OpSpec {
  op: string;
  cases: readonly CaseSpec[];
  /** For the benchmarks: work of one call at the given sizes. */
  cost?: (inputs: Record<string, InputSpec>) => { flops: number; bytes: number };
}

type Floating = 'f64' | 'f32' | 'bf16';

function dtypeOf(input: InputSpec, dtype: Floating): DType {
  if (input.dtype === 'acc') return dtype === 'f64' ? 'f64' : 'f32';
  return input.dtype ?? dtype;
}

function isDifferentiable(input: InputSpec): boolean {
  return input.grad ?? (input.dtype === undefined || input.dtype === 'acc' || input.dtype === 'f64');
}

function makeValues(spec: CaseSpec, dtype: Floating): Record<string, NdArray> {
  const result: Record<string, NdArray> = {};
  Object.entries(spec.inputs).forEach(([name, input], index) => {
    const numel = input.shape.reduce((a, b) => a * b, 1);
    const raw = input.values ?? normals(1000 + index, numel, input.scale ?? 1);
    result[name] = { data: roundTo(raw, dtypeOf(input, dtype)), shape: input.shape };
  });
  return result;
}

function makeTensors(
  spec: CaseSpec,
  values: Record<string, NdArray>,
  dtype: Floating,
  grad: boolean,
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(spec.inputs).map(([name, input]) => [
      name,
      tensor(Float64Array.from((values[name] as NdArray).data), {
        dtype: dtypeOf(input, dtype),
        shape: input.shape,
        device: testDevice,
        requiresGrad: grad && isDifferentiable(input),
      }),
    ]),
  );
}

const list = <T>(x: T | readonly T[]): readonly T[] => (Array.isArray(x) ? (x as readonly T[]) : [x as T]);

/** One weight array per output: the scalar that is differentiated is sum(output * weight). */
function outputWeights(
  outputs: readonly NdArray[],
  spec: CaseSpec,
  dtype: Floating,
): (Float64Array | null)[] {
  return outputs.map(({ data }, i) =>
    spec.differentiable?.[i] === false ? null : roundTo(normals(77 + i, data.length), dtype),
  );
}

function objective(outputs: readonly NdArray[], weights: readonly (Float64Array | null)[]): number {
  let sum = 0;
  outputs.forEach(({ data }, i) => weights[i]?.forEach((w, j) => (sum += w * (data[j] as number))));
  return sum;
}

function perturbed(
  values: Record<string, NdArray>,
  name: string,
  change: (data: Float64Array) => void,
): Record<string, NdArray> {
  const original = values[name] as NdArray;
  const data = Float64Array.from(original.data);
  change(data);
  return { ...values, [name]: { data, shape: original.shape } };
}

async function gradients(
  spec: CaseSpec,
  values: Record<string, NdArray>,
  weights: readonly (Float64Array | null)[],
  dtype: Floating,
): Promise<Record<string, Float64Array>> {
  const inputs = makeTensors(spec, values, dtype, true);
  scope(() => backwardWeighted(list(spec.run(inputs)), weights));
  const result: Record<string, Float64Array> = {};
  for (const [name, input] of Object.entries(inputs))
    if (input.grad) result[name] = await numbers(input.grad);
  return result;
}

/** Central differences of the oracle along each of a few elements, and along one random direction. */
function checkAgainstDifferences(
  t: ExecutionContext,
  spec: CaseSpec,
  values: Record<string, NdArray>,
  weights: readonly (Float64Array | null)[],
  analytic: Record<string, Float64Array>,
): void {
  const step = 1e-5;
  const evaluate = (v: Record<string, NdArray>): number => objective(list(spec.reference(v)), weights);
  const next = generator(4242);
  for (const [name, input] of Object.entries(spec.inputs)) {
    if (!isDifferentiable(input)) continue;
    const gradient = analytic[name];
    t.truthy(gradient, `${name} got no gradient`);
    if (!gradient || gradient.length === 0) continue;
    const scale = Math.max(...gradient.map(Math.abs), 1e-3);
    const elements = Array.from({ length: Math.min(12, gradient.length) }, () =>
      Math.floor(next() * gradient.length),
    );
    for (const i of elements) {
      const at = (h: number): number =>
        evaluate(perturbed(values, name, (d) => (d[i] = (d[i] as number) + h)));
      const numeric = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      const error = Math.abs(numeric - (gradient[i] as number)) / scale;
      t.true(
        error < 1e-6,
        `d/d${name}[${i}]: ${gradient[i]} but differences give ${numeric} (${error} of the largest)`,
      );
    }
    const direction = normals(99, gradient.length);
    const along = (h: number): number =>
      evaluate(
        perturbed(values, name, (d) => d.forEach((x, i) => (d[i] = x + h * (direction[i] as number)))),
      );
    const numeric = (8 * (along(step) - along(-step)) - (along(2 * step) - along(-2 * step))) / (12 * step);
    let exact = 0;
    gradient.forEach((g, i) => (exact += g * (direction[i] as number)));
    const error = Math.abs(numeric - exact) / Math.max(Math.abs(exact), scale * Math.sqrt(gradient.length));
    t.true(error < 1e-6, `d/d${name} along a direction: ${exact} but differences give ${numeric} (${error})`);
  }
}

async function bits(outputs: readonly Tensor[]): Promise<string> {
  const parts = await Promise.all(outputs.map((output) => output.bytes()));
  return parts.map((part) => Buffer.from(part).toString('base64')).join('|');
}

/** Registers the tests of an op: parity and gradients in every dtype, finite differences, equal bits for any threads. */
export function runSpec({ op, cases }: OpSpec): void {
  for (const spec of cases) {
    const slack = spec.slack ?? 32;
    for (const dtype of spec.dtypes ?? (['f64', 'f32', 'bf16'] as const)) {
      test.serial(`${op} ${spec.name} ${dtype}: parity with the oracle`, async (t) => {
        const values = makeValues(spec, dtype);
        const expected = list(spec.reference(values));
        native.poisonOutputs(true);
        try {
          const outputs = list(spec.run(makeTensors(spec, values, dtype, false)));
          t.is(outputs.length, expected.length, 'number of outputs');
          for (const [i, output] of outputs.entries()) {
            await assertClose(t, output, expected[i] as NdArray, slack * epsilon[dtype], `output ${i}`);
          }
        } finally {
          native.poisonOutputs(false);
        }
      });
      if (spec.gradient === false) continue;
      test.serial(`${op} ${spec.name} ${dtype}: gradients`, async (t) => {
        const values = makeValues(spec, dtype);
        const weights = outputWeights(list(spec.reference(values)), spec, dtype);
        native.poisonOutputs(true);
        try {
          const analytic = await gradients(spec, values, weights, dtype);
          if (dtype === 'f64') {
            checkAgainstDifferences(t, spec, values, weights, analytic);
            return;
          }
          const exact = await gradients(spec, values, weights, 'f64');
          for (const [name, gradient] of Object.entries(exact)) {
            const truth = spec.zeroGradients?.includes(name) ? gradient.fill(0) : gradient;
            const error = relativeError(analytic[name] ?? [], truth);
            t.true(error <= 4 * slack * epsilon[dtype], `d/d${name}: relative error ${error}`);
          }
        } finally {
          native.poisonOutputs(false);
        }
      });
    }
    test.serial(`${op} ${spec.name}: the same bits for 1, 2 and 4 threads`, async (t) => {
      const dtype = spec.dtypes?.includes('f32') === false ? 'f64' : 'f32';
      const values = makeValues(spec, dtype);
      const threads = native.numThreads();
      const seen: string[] = [];
      try {
        for (const count of [1, 2, 4, 2]) {
          native.setNumThreads(count);
          const inputs = makeTensors(spec, values, dtype, spec.gradient !== false);
          const outputs = list(spec.run(inputs));
          const forward = await bits(outputs);
          if (spec.gradient !== false) {
            backwardWeighted(outputs, outputWeights(list(spec.reference(values)), spec, dtype));
          }
          const grads = Object.values(inputs).flatMap((input) => (input.grad ? [input.grad] : []));
          seen.push(forward + (await bits(grads)));
        }
      } finally {
        native.setNumThreads(threads);
      }
      t.deepEqual(new Set(seen).size, 1);
    });
  }
}

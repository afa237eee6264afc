import { createRandom } from '../lib/data/random.js';
import { rowMaps, unaryKinds, type FloatDType, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { planOf } from './support/routing.js';
import { timeAgainstPeak, type Section } from './support/measure.js';

type RowMap = (typeof rowMaps)[number];

interface Sizes {
  N: number;
  D: number;
  F: number;
  E: number;
  K: number;
}

export function uniform(shape: readonly number[], dtype: FloatDType, width: number): Tensor {
  const random = createRandom(shape.length);
  const numel = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: numel }, () => (2 * random.next() - 1) * width);
  return tensor(values, { shape, dtype, device: benchDevice });
}

export const free = (handles: readonly (Handle | null)[]): void => {
  for (const handle of handles) if (handle !== null) native.dispose(handle);
};

/** The six products of a layer of MLP experts, forward and backward, each against the peak. */
async function measure(dtype: FloatDType, sizes: Sizes): Promise<Section['rows'][0]> {
  const { N, D, F, E, K } = sizes;
  const plan = planOf({ N, E, K, exponent: 1 });
  const x = uniform([N, D], dtype, 1);
  const w1 = uniform([E, D, F], dtype, 1 / Math.sqrt(D));
  const w2 = uniform([E, F, D], dtype, 1 / Math.sqrt(F));
  const hidden = uniform([N * K, F], dtype, 1);
  const y = uniform([N * K, D], dtype, 1);
  const gelu = unaryKinds.indexOf('geluNew');
  const product = (
    a: Tensor,
    w: Tensor,
    [from, to]: [RowMap, RowMap],
    options: { transpose?: boolean; activation?: boolean; preActivation?: Tensor } = {},
  ) => {
    const { transpose = false, activation = false, preActivation } = options;
    free(
      native.groupedGemm(
        a.id,
        w.id,
        plan.order.id,
        plan.offsets.id,
        K,
        rowMaps.indexOf(from),
        rowMaps.indexOf(to),
        transpose,
        activation ? gelu : null,
        activation && !preActivation,
        preActivation?.id ?? null,
      ),
    );
  };
  const weightGrad = (a: Tensor, b: Tensor, [from, to]: [RowMap, RowMap]) => {
    const [aRows, bRows] = [rowMaps.indexOf(from), rowMaps.indexOf(to)];
    free([native.groupedGemmWeightGrad(a.id, b.id, plan.order.id, plan.offsets.id, K, aRows, bRows)]);
  };
  const cases: Record<string, () => void> = {
    'x w1, gelu': () => product(x, w1, ['token', 'sorted'], { activation: true }),
    'h w2': () => product(hidden, w2, ['sorted', 'slot']),
    "dy w2', gelu'": () =>
      product(y, w2, ['slot', 'sorted'], { transpose: true, activation: true, preActivation: hidden }),
    "dh w1'": () => product(hidden, w1, ['sorted', 'slot'], { transpose: true }),
    dw1: () => weightGrad(x, hidden, ['token', 'sorted']),
    dw2: () => weightGrad(hidden, y, ['sorted', 'slot']),
  };
  const row: Section['rows'][0] = { dtype, N, D, F, E, K };
  for (const [name, enqueue] of Object.entries(cases)) {
    const kind = dtype === 'bf16' ? 'bf16' : 'f32';
    const timing = await timeAgainstPeak(enqueue, { kind, work: 2 * N * K * D * F });
    row[name] = `${timing.share.toFixed(2)} (${(1e3 * timing.seconds).toFixed(1)} ms)`;
  }
  for (const each of [x, w1, w2, hidden, y]) each.dispose();
  return row;
}

/** Grouped GEMM with skewed routing: share of the FMA peak, forward and backward. */
export async function run(): Promise<Section> {
  let shapes = [
    { N: 2048, D: 512, F: 1024, E: 8, K: 2 },
    { N: 2048, D: 512, F: 1024, E: 16, K: 2 },
    { N: 2048, D: 1024, F: 2048, E: 32, K: 2 },
  ];
  if (benchDevice === 'cuda') {
    shapes.push({ N: 16384, D: 1024, F: 2048, E: 32, K: 2 });
    if (isEmulated()) shapes = [{ N: 16, D: 64, F: 64, E: 2, K: 2 }];
  }
  const rows: Section['rows'] = [];
  for (const dtype of ['f32', 'bf16'] as const)
    for (const shape of shapes) rows.push(await measure(dtype, shape));
  return {
    name: 'grouped GEMM: share of the peak (and time) of each product of a layer of MLP experts',
    rows,
  };
}

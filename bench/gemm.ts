import { dtypes, rowMaps, unaryKinds, type FloatDType, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import type { Tensor } from '../lib/tensor.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { uniform } from './support/random-tensor.js';
import { drawExperts, planOf } from './support/routing.js';
import { timeAgainstPeak, type Section } from './support/measure.js';

type RowMap = (typeof rowMaps)[number];

interface Sizes {
  N: number;
  D: number;
  F: number;
  E: number;
  K: number;
}

export const free = (handles: readonly (Handle | null)[]): void => {
  for (const handle of handles) if (handle !== null) native.dispose(handle);
};

/** Shares of the peak in percent, f32 and bf16: of the FMA peak, but at N = 64 of the read bandwidth. */
const TARGETS: Partial<Record<number, Record<'forward' | 'dx' | 'dw', [number, number]>>> = {
  4096: { forward: [90, 88], dx: [85, 85], dw: [80, 80] },
  512: { forward: [80, 75], dx: [62, 60], dw: [70, 55] },
  64: { forward: [80, 80], dx: [60, 60], dw: [70, 70] },
};

interface Case {
  name: string;
  enqueue: () => (Handle | null)[];
  /** Operations, and bytes that the memory must deliver or take. */
  work: number;
  bytes: number;
  /** Share of the peak, in percent. */
  target?: number | undefined;
  /** What share of `work` and of `bytes` each expert has. */
  experts?: readonly { work: number; bytes: number }[];
}

/**
 * The share of the FMA peak that the machine allows: an expert takes as long as its arithmetic or as reading its weights,
 * whichever is longer.
 */
function roofline({ work, bytes, experts = [] }: Case, peak: number, bandwidth: number): number {
  const seconds = experts.map((part) =>
    Math.max((part.work * work) / peak, (part.bytes * bytes) / bandwidth),
  );
  return work / peak / seconds.reduce((a, b) => a + b, 0);
}

async function measure(dtype: FloatDType, N: number, each: Case): Promise<Section['rows'][0]> {
  const run = (): void => free(each.enqueue());
  const kind = dtype === 'bf16' ? 'bf16' : 'f32';
  const percent = (share: number): number => Number((100 * share).toFixed(1));
  const fma = await timeAgainstPeak(run, { kind, work: each.work });
  const memoryBound = N <= 64;
  const read = N <= 512 ? await timeAgainstPeak(run, { kind: 'read', work: each.bytes }) : null;
  const share = percent(memoryBound && read ? read.share : fma.share);
  const limit = read && each.experts ? roofline(each, fma.peak, read.peak) : null;
  return {
    dtype,
    N,
    product: each.name,
    ms: Number((1e3 * fma.seconds).toFixed(2)),
    'share of FMA peak, %': percent(fma.share),
    'share of read bandwidth, %': read ? percent(read.share) : '',
    'limit by the roofline, % of FMA peak': limit ? percent(limit) : '',
    'share of the roofline, %': limit ? percent(fma.share / limit) : '',
    'target, %': each.target === undefined ? '' : `${each.target}${memoryBound ? ' of the bandwidth' : ''}`,
    'target met': each.target === undefined ? '' : share >= each.target ? 'met' : 'missed',
  };
}

/** The products of a layer of MLP experts, forward and backward. */
async function measureLayer(dtype: FloatDType, { N, D, F, E, K }: Sizes): Promise<Section['rows']> {
  const load = { N, E, K, exponent: 1 };
  const plan = planOf(load);
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
    options: { transpose?: boolean; activation?: boolean; keeps?: boolean; preActivation?: Tensor } = {},
  ) => {
    const { transpose = false, activation = false, keeps = false, preActivation } = options;
    return native.groupedGemm(
      ...([
        a.id,
        w.id,
        plan.order.id,
        plan.offsets.id,
        K,
        rowMaps.indexOf(from),
        rowMaps.indexOf(to),
      ] as const),
      ...([transpose, activation ? gelu : null, keeps, preActivation?.id ?? null] as const),
    );
  };
  const weightGrad = (a: Tensor, b: Tensor, [from, to]: [RowMap, RowMap]) => {
    const [aRows, bRows] = [rowMaps.indexOf(from), rowMaps.indexOf(to)];
    return [native.groupedGemmWeightGrad(a.id, b.id, plan.order.id, plan.offsets.id, K, aRows, bRows)];
  };
  const size = dtype === 'bf16' ? 2 : 4;
  const work = 2 * N * K * D * F;
  const rowsOf = new Map<number, number>();
  for (const e of drawExperts(load)) rowsOf.set(e, (rowsOf.get(e) ?? 0) + 1);
  const bytes = rowsOf.size * D * F * size;
  const experts = [...rowsOf.values()].map((rows) => ({ work: rows / (N * K), bytes: 1 / rowsOf.size }));
  const target = (kind: 'forward' | 'dx' | 'dw'): number | undefined =>
    benchDevice === 'cpu' ? TARGETS[N]?.[kind][dtype === 'bf16' ? 1 : 0] : undefined;
  const toHidden: [RowMap, RowMap] = ['token', 'sorted'];
  const cases: Omit<Case, 'work' | 'experts'>[] = [
    {
      name: 'forward: gather, x w1, gelu',
      enqueue: () => product(x, w1, toHidden, { activation: true }),
      bytes,
      target: target('forward'),
    },
    {
      name: 'the same, x w1 kept for backward',
      enqueue: () => product(x, w1, toHidden, { activation: true, keeps: true }),
      bytes,
    },
    { name: 'forward: h w2', enqueue: () => product(hidden, w2, ['sorted', 'slot']), bytes },
    {
      name: "dx: dh w1'",
      enqueue: () => product(hidden, w1, ['sorted', 'slot'], { transpose: true }),
      bytes,
      target: target('dx'),
    },
    {
      name: "dx: dy w2', times gelu'",
      enqueue: () =>
        product(y, w2, ['slot', 'sorted'], { transpose: true, activation: true, preActivation: hidden }),
      bytes,
    },
    {
      name: 'dw1',
      enqueue: () => weightGrad(x, hidden, toHidden),
      bytes: E * D * F * size,
      target: target('dw'),
    },
    {
      name: 'dw2',
      enqueue: () => weightGrad(hidden, y, ['sorted', 'slot']),
      bytes: E * D * F * size,
      target: target('dw'),
    },
  ];
  const rows: Section['rows'] = [];
  for (const each of cases) rows.push(await measure(dtype, N, { ...each, work, experts }));
  for (const each of [x, w1, w2, hidden, y]) each.dispose();
  return rows;
}

async function measureDense(dtype: FloatDType, n: number, target: number): Promise<Section['rows'][0]> {
  const [x, weight] = [uniform([n, n], dtype, 1), uniform([n, n], dtype, 1)];
  const code = dtypes.indexOf(dtype);
  const row = await measure(dtype, n, {
    name: `dense: ${n} x ${n} x ${n}`,
    enqueue: () => native.linear(x.id, weight.id, null, null, false, code),
    work: 2 * n ** 3,
    bytes: n * n * (dtype === 'bf16' ? 2 : 4),
    target: benchDevice === 'cpu' ? target : undefined,
  });
  x.dispose();
  weight.dispose();
  return row;
}

/** Dense and grouped GEMM with skewed routing at MoLM's shape, against the FMA peak and the bandwidth. */
export async function run(): Promise<Section> {
  const rows: Section['rows'] = [];
  const molm = { D: 1024, F: 2048, E: 32, K: 2 };
  let layers = [4096, 512, 64].map((N) => ({ N, ...molm }));
  if (benchDevice === 'cuda') layers.unshift({ N: 16384, ...molm });
  if (benchDevice === 'cuda' && isEmulated()) layers = [{ N: 16, D: 64, F: 64, E: 2, K: 2 }];
  else rows.push(await measureDense('f32', 2048, 90), await measureDense('bf16', 2048, 85));
  for (const layer of layers)
    for (const dtype of ['f32', 'bf16'] as const) rows.push(...(await measureLayer(dtype, layer)));
  return { name: 'grouped GEMM: D 1024, F 2048, E 32, K 2, loads in proportion to 1 / (e + 1)', rows };
}

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { attentionKinds, rowMaps, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { vectors } from './attention.js';
import { free } from './gemm.js';
import { uniform } from './support/random-tensor.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { drawExperts, planOf, type Load } from './support/routing.js';
import { medianSeconds, type Section } from './support/measure.js';

interface Product extends Load {
  D: number;
  F: number;
}
interface Heads {
  B: number;
  T: number;
  K: number;
  H: number;
  C: number;
}

/** One row of the table: our work, and what PyTorch is to do beside it. */
interface Comparison {
  row: Section['rows'][0];
  ours: () => Promise<number>;
  theirs: Record<string, object>;
}

interface Answer {
  torch: string;
  device: string;
  results: { seconds: number | null; reason?: string }[];
}

function askPyTorch(cases: readonly object[]): Answer {
  const script = fileURLToPath(new URL('peers/pytorch.py', import.meta.url));
  const input = JSON.stringify({ device: benchDevice, cases });
  const python = process.env['PYTHON'] ?? 'python3';
  const { status, stdout, error } = spawnSync(python, [script], {
    input,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  if (status !== 0) {
    throw new Error(
      `bench: ${python} ${script} failed (${error?.message ?? status}): PYTHON names one with torch`,
    );
  }
  return JSON.parse(stdout) as Answer;
}

/** Where the rows of each expert end, in the sorted order. */
function endsOf(load: Load): number[] {
  const counts = new Array<number>(load.E).fill(0);
  for (const expert of drawExperts(load)) counts[expert] = (counts[expert] as number) + 1;
  let end = 0;
  return counts.map((count) => (end += count));
}

function product(sizes: Product): Comparison {
  const { N, D, F, E, K, exponent } = sizes;
  const rows = N * K;
  const theirs = { rows, in: D, out: F };
  return {
    row: { op: 'grouped GEMM', shape: `N ${N}, D ${D}, F ${F}, E ${E}, K ${K}, exponent ${exponent}` },
    theirs: {
      'torch.matmul': { op: 'matmul', ...theirs },
      'torch._grouped_mm': { op: 'grouped', ...theirs, offsets: endsOf(sizes) },
    },
    ours: async () => {
      const plan = planOf(sizes);
      using x = uniform([rows, D], 'bf16', 1);
      using w = uniform([E, D, F], 'bf16', 1 / Math.sqrt(D));
      const sorted = rowMaps.indexOf('sorted');
      return await medianSeconds(() => {
        const args = [x.id, w.id, plan.order.id, plan.offsets.id, K, sorted, sorted] as const;
        free(native.groupedGemm(...args, false, null, false, null));
      });
    },
  };
}

function attention(kind: (typeof attentionKinds)[number], heads: Heads, backward: boolean): Comparison {
  const { B, T, K, H, C } = heads;
  const direction = backward ? 'backward' : 'forward';
  return {
    row: { op: `${kind}, ${direction}`, shape: `B ${B}, T ${T}, K ${K}, H ${H}, C ${C}` },
    theirs: { 'torch SDPA': { op: backward ? 'attentionBackward' : 'attention', ...heads } },
    ours: async () => {
      const code = attentionKinds.indexOf(kind);
      using q = vectors([B, T, K, H, C], -8 * Math.sqrt(C), 'bf16');
      using k = vectors([B, T, H, C], 1, 'bf16');
      using v = vectors([B, T, H, C], 0.5, 'bf16');
      const inputs = [code, q.id, k.id, v.id, null, null, T, true, false] as const;
      if (!backward) return await medianSeconds(() => free(native.attention(...inputs, false)));
      const outputs = native.attention(...inputs, true);
      const [out, state, live] = outputs as [Handle, Handle, Handle | null];
      const seconds = await medianSeconds(() =>
        free(native.attentionBackward(...inputs, out, state, live, q.id)),
      );
      free(outputs);
      return seconds;
    },
  };
}

function comparisons(): Comparison[] {
  const small = benchDevice === 'cpu' || isEmulated();
  const products: Product[] = small
    ? [{ N: 32, D: 64, F: 64, E: 4, K: 2, exponent: 1 }]
    : [0, 1].flatMap((exponent) =>
        [2048, 16384].map((N) => ({ N, D: 1024, F: 2048, E: 32, K: 2, exponent })),
      );
  const heads: Heads[] = small
    ? [{ B: 1, T: 32, K: 2, H: 1, C: 32 }]
    : [64, 128].map((C) => ({ B: 4, T: 2048, K: 2, H: 1024 / C, C }));
  const directions = [false, true];
  return [
    ...products.map(product),
    ...heads.flatMap((each) =>
      attentionKinds.flatMap((kind) => directions.map((backward) => attention(kind, each, backward))),
    ),
  ];
}

const milliseconds = (seconds: number): number => Number((1e3 * seconds).toPrecision(4));

/** bf16, on one device in one run: this package, then PyTorch at equal shapes. A share is PyTorch's time by ours. */
export async function run(): Promise<Section> {
  const all = comparisons();
  const ours: number[] = [];
  for (const each of all) ours.push(await each.ours());
  native.trimMemory();
  const { torch, device, results } = askPyTorch(all.flatMap(({ theirs }) => Object.values(theirs)));
  const rows = all.map(({ row, theirs }, i) => {
    const seconds = ours[i] as number;
    const cells: Section['rows'][0] = { ...row, 'ours ms': milliseconds(seconds) };
    for (const name of Object.keys(theirs)) {
      const { seconds: peer, reason } = results.shift() ?? { seconds: null, reason: 'no answer' };
      cells[`${name} ms`] = peer === null ? (reason ?? '') : milliseconds(peer);
      if (peer !== null) cells[`share of ${name}`] = Number((peer / seconds).toFixed(2));
    }
    return cells;
  });
  return { name: `pytorch: torch ${torch} on ${device}, bf16`, rows };
}

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRandom } from '../lib/data/random.js';
import { rowMaps, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { drawExperts, planOf } from './support/routing.js';
import { median, type Section } from './support/measure.js';

const MOLM = { D: 1024, F: 2048, E: 32, K: 2 };
const REPEATS = 7;

interface Seconds {
  forward: number;
  dx: number;
  dw: number;
}

/** Builds peers/openblas.cc; throws without a compiler or OpenBLAS (Debian: libopenblas-dev). */
function build(dir: string): string {
  const source = fileURLToPath(new URL('peers/openblas.cc', import.meta.url));
  const program = path.join(dir, 'openblas');
  execFileSync('g++', ['-O2', '-std=c++20', source, '-o', program, '-lopenblas']);
  return program;
}

/** OpenBLAS picks its kernel for this processor: variables that impose another are taken away. */
function runOpenBlas(
  program: string,
  counts: readonly number[],
): Seconds & { kernel: string; config: string } {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^OPENBLAS_(CORETYPE|L2_SIZE)$/.test(name)),
  );
  const output = execFileSync(program, [MOLM.D, MOLM.F, REPEATS, ...counts].map(String), {
    env: { ...env, OPENBLAS_NUM_THREADS: String(native.numThreads()) },
    encoding: 'utf8',
  });
  return JSON.parse(output) as Seconds & { kernel: string; config: string };
}

async function runOurs(N: number): Promise<Seconds> {
  const { D, F, E, K } = MOLM;
  const random = createRandom(N);
  const uniform = (shape: readonly number[]): Tensor => {
    const numel = shape.reduce((a, b) => a * b, 1);
    return tensor(
      Float32Array.from({ length: numel }, () => 2 * random.next() - 1),
      { shape },
    );
  };
  const plan = planOf({ N, E, K, exponent: 1 });
  const [x, w, dy] = [uniform([N, D]), uniform([E, D, F]), uniform([N * K, F])];
  const [token, sorted] = [rowMaps.indexOf('token'), rowMaps.indexOf('sorted')];
  const [order, offsets] = [plan.order.id, plan.offsets.id];
  const time = async (enqueue: () => (Handle | null)[]): Promise<number> => {
    const seconds: number[] = [];
    for (let i = 0; i <= REPEATS; i++) {
      const start = performance.now();
      for (const handle of enqueue()) if (handle !== null) native.dispose(handle);
      await native.synchronize();
      if (i > 0) seconds.push((performance.now() - start) / 1000);
    }
    return median(seconds);
  };
  const product = (from: Tensor, fromRows: number, transpose: boolean) => () =>
    native.groupedGemm(
      ...([from.id, w.id, order, offsets, K, fromRows, sorted, transpose, null, false, null] as const),
    );
  const result = {
    forward: await time(product(x, token, false)),
    dx: await time(product(dy, sorted, true)),
    dw: await time(() => [native.groupedGemmWeightGrad(x.id, dy.id, order, offsets, K, token, sorted)]),
  };
  for (const each of [x, w, dy]) each.dispose();
  return result;
}

/** Our grouped GEMM beside OpenBLAS called once per expert on gathered rows, f32, in turn on this machine. */
export async function run(): Promise<Section> {
  const dir = mkdtempSync(path.join(tmpdir(), 'moduleformer-bench-'));
  const rows: Section['rows'] = [];
  let kernel = '';
  try {
    const program = build(dir);
    for (const N of [4096, 512, 64]) {
      const counts = Array<number>(MOLM.E).fill(0);
      for (const e of drawExperts({ N, E: MOLM.E, K: MOLM.K, exponent: 1 })) counts[e] = (counts[e] ?? 0) + 1;
      const ours = await runOurs(N);
      const theirs = runOpenBlas(program, counts);
      kernel = `${theirs.config} (kernel ${theirs.kernel})`;
      const ms = (seconds: number): number => Number((1e3 * seconds).toFixed(2));
      for (const name of ['forward', 'dx', 'dw'] as const) {
        rows.push({
          N,
          product: name,
          'ours, ms': ms(ours[name]),
          'OpenBLAS, ms': ms(theirs[name]),
          'times as fast': Number((theirs[name] / ours[name]).toFixed(2)),
        });
      }
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
  return { name: `openblas: D 1024, F 2048, E 32, K 2, skewed loads, f32; ${kernel}`, rows };
}

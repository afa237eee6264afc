import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { rowMaps, type FloatDType, type Handle } from '../../lib/native/binding.js';
import { native } from '../../lib/native/load.js';
import { uniform } from './random-tensor.js';
import { median, type Section } from './measure.js';
import { drawExperts, planOf } from './routing.js';

const MOLM = { D: 1024, F: 2048, E: 32, K: 2 };
const ROUNDS = 3;
const REPEATS = 5;
const products = ['forward', 'dx', 'dw'] as const;

type Seconds = Record<(typeof products)[number], number>;

/** A library that is called once per expert, and the program in peers/ that does it. */
export interface Peer {
  name: string;
  /** peers/SOURCE.cc */
  source: string;
  dtype: FloatDType;
  /** What the compiler is given besides the source. */
  flags: readonly string[];
  /** The Debian package that has the library. */
  debianPackage: string;
  environment: (threads: number) => Record<string, string>;
}

/** @throws Error without a compiler or the library. */
function build({ name, source, flags, debianPackage }: Peer, dir: string): string {
  const file = fileURLToPath(new URL(`../peers/${source}.cc`, import.meta.url));
  const program = path.join(dir, source);
  try {
    execFileSync('g++', ['-O2', '-std=c++20', file, '-o', program, ...flags], { stdio: 'pipe' });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`bench: ${name} needs g++ and ${debianPackage} (Debian's name): ${why}`, {
      cause: error,
    });
  }
  return program;
}

/** Variables that impose a kernel on a library are taken away; its memory is in huge pages as ours is. */
function runPeer(program: string, peer: Peer, counts: readonly number[]): Seconds & { library: string } {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^(OPENBLAS|ONEDNN|DNNL|OMP)_/.test(key)),
  );
  const output = execFileSync(program, [MOLM.D, MOLM.F, REPEATS, ...counts].map(String), {
    env: { ...env, GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1', ...peer.environment(native.numThreads()) },
    encoding: 'utf8',
  });
  return JSON.parse(output) as Seconds & { library: string };
}

/** The three products of our grouped GEMM, with the memory they need. */
function ourProducts(N: number, dtype: FloatDType): { run: () => Promise<Seconds>; dispose: () => void } {
  const { D, F, E, K } = MOLM;
  const plan = planOf({ N, E, K, exponent: 1 });
  const x = uniform([N, D], dtype, 1);
  const w = uniform([E, D, F], dtype, 1);
  const dy = uniform([N * K, F], dtype, 1);
  const [token, sorted] = [rowMaps.indexOf('token'), rowMaps.indexOf('sorted')];
  const seconds = async (enqueue: () => (Handle | null)[]): Promise<number> => {
    const each: number[] = [];
    for (let i = 0; i <= REPEATS; i++) {
      const start = performance.now();
      for (const handle of enqueue()) if (handle !== null) native.dispose(handle);
      await native.synchronize();
      if (i > 0) each.push((performance.now() - start) / 1000);
    }
    return median(each);
  };
  const product = (from: Handle, fromRows: number, transpose: boolean) => () =>
    native.groupedGemm(
      ...([
        from,
        w.id,
        plan.order.id,
        plan.offsets.id,
        K,
        fromRows,
        sorted,
        transpose,
        null,
        false,
        null,
      ] as const),
    );
  return {
    run: async () => ({
      forward: await seconds(product(x.id, token, false)),
      dx: await seconds(product(dy.id, sorted, true)),
      dw: await seconds(() => [
        native.groupedGemmWeightGrad(x.id, dy.id, plan.order.id, plan.offsets.id, K, token, sorted),
      ]),
    }),
    dispose: () => {
      for (const each of [x, w, dy]) each.dispose();
    },
  };
}

/** Our grouped GEMM and a library called once per expert on gathered rows, in turn. */
async function comparePeer(peer: Peer, dir: string): Promise<{ library: string; rows: Section['rows'] }> {
  const program = build(peer, dir);
  const rows: Section['rows'] = [];
  let library = '';
  for (const N of [4096, 512, 64]) {
    const counts = Array<number>(MOLM.E).fill(0);
    for (const e of drawExperts({ N, E: MOLM.E, K: MOLM.K, exponent: 1 })) counts[e] = (counts[e] ?? 0) + 1;
    const our = ourProducts(N, peer.dtype);
    const rounds: { ours: Seconds; theirs: Seconds }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const ours = await our.run();
      const theirs = runPeer(program, peer, counts);
      library = theirs.library;
      rounds.push({ ours, theirs });
    }
    our.dispose();
    for (const product of products) {
      const milliseconds = (of: (round: (typeof rounds)[0]) => Seconds): number =>
        Number((1e3 * median(rounds.map((round) => of(round)[product]))).toFixed(2));
      const ratio = median(rounds.map(({ ours, theirs }) => theirs[product] / ours[product]));
      rows.push({
        dtype: peer.dtype,
        N,
        product,
        'ours, ms': milliseconds(({ ours }) => ours),
        [`${peer.name}, ms`]: milliseconds(({ theirs }) => theirs),
        'times as fast': Number(ratio.toFixed(2)),
      });
    }
  }
  return { library, rows };
}

/** The section of a library: one table over the dtypes that it multiplies. */
export async function comparePeers(peers: readonly Peer[]): Promise<Section> {
  const dir = mkdtempSync(path.join(tmpdir(), 'moduleformer-bench-'));
  const libraries: string[] = [];
  const rows: Section['rows'] = [];
  try {
    for (const peer of peers) {
      const compared = await comparePeer(peer, dir);
      libraries.push(compared.library);
      rows.push(...compared.rows);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
  return { name: `once per expert: D 1024, F 2048, E 32, K 2, skewed loads; ${libraries.join('; ')}`, rows };
}

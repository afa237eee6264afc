import { comparePeers } from './support/per-expert.js';
import type { Section } from './support/measure.js';

/** Our grouped GEMM beside OpenBLAS called once per expert on gathered rows: f32, it has no bf16 product here. */
export function run(): Promise<Section> {
  return comparePeers([
    {
      name: 'OpenBLAS',
      source: 'openblas',
      dtype: 'f32',
      flags: ['-lopenblas'],
      debianPackage: 'libopenblas-dev',
      environment: (threads) => ({ OPENBLAS_NUM_THREADS: String(threads) }),
    },
  ]);
}

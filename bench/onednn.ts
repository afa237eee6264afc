import { comparePeers, type Peer } from './support/per-expert.js';
import type { Section } from './support/measure.js';

/** Our grouped GEMM beside oneDNN called once per expert on gathered rows, f32 and bf16. */
export function run(): Promise<Section> {
  const oneDnn: Omit<Peer, 'dtype' | 'flags'> = {
    name: 'oneDNN',
    source: 'onednn',
    debianPackage: 'libdnnl-dev',
    environment: (threads) => ({ OMP_NUM_THREADS: String(threads) }),
  };
  return comparePeers([
    { ...oneDnn, dtype: 'f32', flags: ['-ldnnl'] },
    { ...oneDnn, dtype: 'bf16', flags: ['-DPEER_BF16', '-ldnnl'] },
  ]);
}

import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';
import { createRandom } from '../lib/data/random.js';
import { median, type Section } from './support/measure.js';

const REPEATS = 3;
const base = { vocab_size: 1024, n_embd: 512, n_layer: 1, n_head: 8, att_hidden: 512, ffd_hidden: 1024 };

interface Case {
  /** What varies, and its value. */
  axis: 'N' | 'T' | 'E' | 'D' | 'threads';
  value: number;
  config?: ModuleFormerConfigInit;
  B: number;
  T: number;
  threads?: number;
}

const cases: readonly Case[] = [
  ...[1, 2, 4, 8, 16, 32, 64].map((B): Case => ({ axis: 'N', value: B * 256, B, T: 256 })),
  ...[128, 256, 512, 1024, 2048, 4096, 8192].map((T): Case => ({ axis: 'T', value: T, B: 8192 / T, T })),
  ...[8, 16, 32, 64, 128, 256].map((E): Case => ({
    axis: 'E',
    value: E,
    B: 32,
    T: 256,
    // The experts of the attention and of the MLP, of the same size whatever their number.
    config: { n_att_experts: E, n_mlp_experts: E, ffd_hidden: 512 },
  })),
  ...[256, 512, 1024, 2048].map((D): Case => ({
    axis: 'D',
    value: D,
    B: 8,
    T: 256,
    config: { n_embd: D, att_hidden: D, ffd_hidden: 2 * D, n_head: D / 64 },
  })),
  ...[1, 2].map((threads): Case => ({ axis: 'threads', value: threads, B: 16, T: 256, threads })),
];

/** Median seconds of a forward and backward pass, and the peak of native memory. */
async function measure({ config, B, T }: Case): Promise<{ seconds: number; peak: number }> {
  const fields = new ModuleFormerConfig({ ...base, n_att_experts: 8, n_mlp_experts: 16, ...config });
  const model = new ModuleFormerForCausalLM(fields, { seed: 1 }).train();
  const random = createRandom(5);
  const ids = Int32Array.from({ length: B * T }, () => Math.floor(random.next() * fields.vocab_size));
  const inputIds = tensor(ids, { shape: [B, T] });
  const seconds: number[] = [];
  native.resetPeakMemory();
  for (let i = 0; i <= REPEATS; i++) {
    const start = performance.now();
    scope(() => {
      model.forward({ inputIds, labels: inputIds, outputLogits: false }).loss?.backward();
    });
    await native.synchronize();
    seconds.push((performance.now() - start) / 1000);
    for (const parameter of model.parameters()) {
      parameter.grad?.dispose();
      parameter.grad = null;
    }
  }
  const { peak } = native.memoryStats();
  inputIds.dispose();
  model.dispose();
  native.trimMemory();
  return { seconds: median(seconds.slice(1)), peak };
}

/**
 * What one block (embedding and head of 1024 tokens besides) costs, forward and backward in f32, as one size grows and
 * the others stay: D 512, F 1024, E 8/16, K 2, T 256 unless they vary. T at N = 8192; E (attention and MLP alike, F 512)
 * at N = 8192.
 */
export async function run(): Promise<Section> {
  const rows: Section['rows'] = [];
  const threads = native.numThreads();
  for (const each of cases) {
    native.setNumThreads(each.threads ?? threads);
    const { seconds, peak } = await measure(each);
    const first = rows.find(({ axis }) => axis === each.axis);
    const ms = Number((1e3 * seconds).toFixed(1));
    rows.push({
      axis: each.axis,
      value: each.value,
      'ms a pass': ms,
      'us a token': Number(((1e6 * seconds) / (each.B * each.T)).toFixed(2)),
      'time to the first': `${(ms / Number(first?.['ms a pass'] ?? ms)).toFixed(2)} x`,
      'peak memory MB': Math.round(peak / 1e6),
    });
  }
  native.setNumThreads(threads);
  return { name: 'scaling: forward and backward of one block, f32', rows };
}

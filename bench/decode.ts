import { freemem } from 'node:os';
import { noGrad } from '../lib/autograd/index.js';
import { createRandom } from '../lib/data/random.js';
import { Decoder } from '../lib/generation/decoder.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { KeyValueCache } from '../lib/model/key-value-cache.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { quantize } from '../lib/model/quantize.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import type { Tensor } from '../lib/tensor.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { measurePeak, median, type Section } from './support/measure.js';

const PROMPT = 16;
const WARM_UP = 3;
const BYTES = 2;
const GROUP = 64;
/** Of a weight in bf16, and in 8 bits with its share of the group's scale. */
const bytesOf = { bf16: BYTES, i8: 1 + 4 / GROUP } as const;
type Weights = keyof typeof bytesOf;

/** Bytes of the weights that one token reads. */
function activeBytes(config: ModuleFormerConfig, weights: Weights): number {
  const { n_embd: D, att_hidden: A, ffd_hidden: F, gating_size: G, k_att, k_mlp, vocab_size: V } = config;
  const layers = config.attentionExperts.map((attention, layer) => {
    const mlp = config.mlpExperts[layer] as number;
    return bytesOf[weights] * 2 * D * (k_att * A + k_mlp * F) + BYTES * G * (2 * D + attention + mlp);
  });
  return layers.reduce((a, b) => a + b, 0) + bytesOf[weights] * V * D;
}

/** Random tokens, so that a batch's rows choose experts independently. */
async function measure(
  model: ModuleFormerForCausalLM,
  weights: Weights,
  batch: number,
  steps: number,
): Promise<Section['rows'][0]> {
  const random = createRandom(batch);
  const draw = (length: number): number[][] =>
    Array.from({ length: batch }, () =>
      Array.from({ length }, () => Math.floor(random.next() * model.config.vocab_size)),
    );
  const cache = new KeyValueCache(PROMPT + WARM_UP + steps);
  const ids = draw(PROMPT);
  const prefill = noGrad(() =>
    scope(() => model.forward({ inputIds: ids, cache, lastLogitsOnly: true }).logits as Tensor),
  );
  await prefill.data();
  prefill.dispose();
  const sampling = { temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, seed: 0 };
  const decoder = new Decoder(model, { prompt: { ids, mask: null }, cache, sampling });
  const feed = (): void => native.write(decoder.ids.id, Int32Array.from(draw(1).flat()), 0);
  for (let i = 0; i < WARM_UP; i++) {
    feed();
    await decoder.step();
  }

  const seconds: number[] = [];
  const shares: number[] = [];
  const bytes = activeBytes(model.config, weights);
  let bandwidth = 1;
  const active: number[] = [];
  const waits: number[] = [];
  let forks = 0;
  for (let i = 0; i < steps; i++) {
    if (i % 8 === 0) bandwidth = measurePeak('read');
    feed();
    const pool = native.poolStats();
    const before = performance.eventLoopUtilization();
    const start = performance.now();
    await decoder.step();
    const total = (performance.now() - start) / 1000;
    active.push(performance.eventLoopUtilization(before).active);
    const { jobs, seconds: waited } = native.poolStats();
    seconds.push(total);
    shares.push(bytes / total / bandwidth);
    waits.push(waited - pool.seconds);
    forks = jobs - pool.jobs;
  }
  decoder.dispose();
  cache.dispose();
  const typical = median(seconds);
  return {
    weights,
    blocks: model.config.n_layer,
    batch,
    'ms per step': Number((1e3 * typical).toFixed(2)),
    'tokens/s': Number((batch / typical).toFixed(1)),
    'active MB': Number((bytes / 1e6).toFixed(0)),
    'share of read bandwidth': batch === 1 ? Number(median(shares).toFixed(2)) : '',
    'JS, N-API, enqueue us': Math.round(1e3 * median(active)),
    forks,
    'fork and join us': Math.round(1e6 * median(waits)),
  };
}

/** Fewer than 24 blocks where memory is short: the share of the bandwidth stays comparable. */
function blocksThatFit(bytesPerBlock: number): number {
  return [24, 12, 6, 3].find((blocks) => blocks * bytesPerBlock < 0.6 * freemem()) ?? 2;
}

/** A tiny model on the emulator: that the section runs, not how fast. */
async function checkOnly(): Promise<Section> {
  const model = new ModuleFormerForCausalLM(presetConfig('tiny'), { dtype: 'bf16', device: benchDevice });
  const rows = [await measure(model, 'bf16', 1, 2)];
  model.dispose();
  return { name: 'decode: a tiny model', rows };
}

/** Decoding at MoLM-350M-4B's shape with random weights, against the memory. */
export async function run(): Promise<Section> {
  if (benchDevice === 'cuda' && isEmulated()) return checkOnly();
  const preset = presetConfig('MoLM-350M-4B');
  const { n_embd: D, att_hidden: A, ffd_hidden: F } = preset;
  const [attention, mlp] = [preset.attentionExperts[0] as number, preset.mlpExperts[0] as number];
  const blocks = Number(
    process.env.BENCH_BLOCKS ??
      (benchDevice === 'cuda' ? 24 : blocksThatFit(BYTES * 2 * D * (attention * A + mlp * F))),
  );
  const config = new ModuleFormerConfig({ ...preset.toJSON(), n_layer: blocks });
  const model = new ModuleFormerForCausalLM(config, { dtype: 'bf16', device: benchDevice });
  const rows: Section['rows'] = [];
  for (const weights of ['bf16', 'i8'] as const) {
    if (weights === 'i8') quantize(model, { groupSize: GROUP });
    for (const batch of [1, 2, 4, 8, 16]) rows.push(await measure(model, weights, batch, 24));
  }
  model.dispose();
  return { name: `decode: MoLM-350M-4B's shape, ${blocks} blocks, random weights`, rows };
}

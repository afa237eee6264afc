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
const WARM_UP = 1;
const ROUNDS = 16;
/** Steps that a batch does in a row, the next one enqueued before the last one's tokens are awaited. */
const STEPS = 4;
/** Steps by which JavaScript's part is measured. */
const ALONE = 24;
const SIZES = [1, 2, 4, 8, 16];
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

/** Greedy decoding of a batch, a step at a time, and what it took. */
class Batch {
  readonly seconds: number[] = [];
  readonly #waits: number[] = [];
  #forks = 0;
  readonly #draw: (length: number) => number[][];
  readonly #cache: KeyValueCache;
  readonly #decoder: Decoder;

  private constructor(draw: (length: number) => number[][], cache: KeyValueCache, decoder: Decoder) {
    this.#draw = draw;
    this.#cache = cache;
    this.#decoder = decoder;
  }

  /** Random tokens, so that a batch's rows choose experts independently. */
  static async make(model: ModuleFormerForCausalLM, size: number): Promise<Batch> {
    const random = createRandom(size);
    const draw = (length: number): number[][] =>
      Array.from({ length: size }, () =>
        Array.from({ length }, () => Math.floor(random.next() * model.config.vocab_size)),
      );
    const cache = new KeyValueCache(PROMPT + (WARM_UP + ROUNDS) * STEPS + ALONE);
    const ids = draw(PROMPT);
    const prefill = noGrad(() =>
      scope(() => model.forward({ inputIds: ids, cache, lastLogitsOnly: true }).logits as Tensor),
    );
    await prefill.data();
    prefill.dispose();
    const sampling = { temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, seed: 0 };
    const decoder = new Decoder(model, { prompt: { ids, mask: null }, cache, sampling });
    return new Batch(draw, cache, decoder);
  }

  async steps(): Promise<void> {
    const pool = native.poolStats();
    const start = performance.now();
    let last: Promise<unknown> | null = null;
    for (let i = 0; i < STEPS; i++) {
      native.write(this.#decoder.ids.id, Int32Array.from(this.#draw(1).flat()), 0);
      const step = this.#decoder.step();
      await last;
      last = step;
    }
    await last;
    this.seconds.push((performance.now() - start) / 1000 / STEPS);
    const { jobs, seconds } = native.poolStats();
    this.#waits.push((seconds - pool.seconds) / STEPS);
    this.#forks = (jobs - pool.jobs) / STEPS;
  }

  /** Leaves the steps so far out of what is told. */
  forget(): void {
    for (const times of [this.seconds, this.#waits]) times.length = 0;
  }

  /**
   * Seconds a step in which the event loop is not idle, over steps in a row: asking before and after each of them would
   * cost as much again, for its code is gone from the caches too.
   */
  async javaScript(): Promise<number> {
    const before = performance.eventLoopUtilization();
    for (let i = 0; i < ALONE; i++) await this.#decoder.step();
    return performance.eventLoopUtilization(before).active / 1000 / ALONE;
  }

  /** Seconds a step, and what threads waited for each other. */
  times(): { step: number; forks: number; forkJoin: number } {
    return {
      step: median(this.seconds),
      forks: this.#forks,
      forkJoin: median(this.#waits),
    };
  }

  dispose(): void {
    this.#decoder.dispose();
    this.#cache.dispose();
  }
}

/** All batches in turn, a few steps each: what slows the machine for a while slows all of them. */
async function measure(
  model: ModuleFormerForCausalLM,
  weights: Weights,
  sizes: readonly number[] = SIZES,
): Promise<Section['rows']> {
  const batches = new Map<number, Batch>();
  for (const size of sizes) batches.set(size, await Batch.make(model, size));
  const rounds = async (count: number, each: () => void): Promise<void> => {
    for (let i = 0; i < count; i++) {
      each();
      for (const batch of batches.values()) await batch.steps();
    }
  };
  await rounds(WARM_UP, () => undefined);
  for (const batch of batches.values()) batch.forget();
  const bandwidths: number[] = [];
  await rounds(ROUNDS, () => bandwidths.push(measurePeak('read')));

  const bytes = activeBytes(model.config, weights);
  const one = batches.get(1)?.seconds ?? [];
  const share = median(one.map((seconds, i) => bytes / seconds / (bandwidths[i] as number)));
  const rows: Section['rows'] = [];
  for (const [size, batch] of batches) {
    const javaScript = await batch.javaScript();
    const { step, forks, forkJoin } = batch.times();
    batch.dispose();
    rows.push({
      weights,
      blocks: model.config.n_layer,
      batch: size,
      'ms per step': Number((1e3 * step).toFixed(2)),
      'tokens/s': Number((size / step).toFixed(1)),
      'active MB': Number((bytes / 1e6).toFixed(0)),
      'share of read bandwidth': size === 1 ? Number(share.toFixed(2)) : '',
      'JS, N-API, enqueue us': Math.round(1e6 * javaScript),
      forks,
      'fork and join us': Math.round(1e6 * forkJoin),
      'kernels ms': Number((1e3 * (step - forkJoin)).toFixed(2)),
    });
  }
  return rows;
}

/** Fewer than 24 blocks where memory is short: the share of the bandwidth stays comparable. */
function blocksThatFit(bytesPerBlock: number): number {
  return [24, 12, 6, 3].find((blocks) => blocks * bytesPerBlock < 0.6 * freemem()) ?? 2;
}

/** A tiny model on the emulator: that the section runs, not how fast. */
async function checkOnly(): Promise<Section> {
  const model = new ModuleFormerForCausalLM(presetConfig('tiny'), { dtype: 'bf16', device: benchDevice });
  const rows = await measure(model, 'bf16', [1]);
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
    rows.push(...(await measure(model, weights)));
  }
  model.dispose();
  return { name: `decode: MoLM-350M-4B's shape, ${blocks} blocks, random weights`, rows };
}

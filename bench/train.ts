import { ModuleFormerConfig } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { native } from '../lib/native/load.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';
import { createRandom } from '../lib/data/random.js';
import { mainThreadSeconds } from './support/machine.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { measurePeak, median, timeAgainstPeak, type Section } from './support/measure.js';

interface Shape {
  name: string;
  config: ModuleFormerConfig;
  B: number;
  T: number;
  repeats: number;
}

const shapes: readonly Shape[] = [
  {
    name: 'base (D 512, F 1024, E 8/16, L 6, V 8192)',
    config: presetConfig('base'),
    B: 4,
    T: 512,
    repeats: 5,
  },
  {
    name: 'wide (D 1024, F 2048, E 16/32, L 4, V 8192)',
    config: new ModuleFormerConfig({
      ...presetConfig('MoLM-350M-4B').toJSON(),
      n_layer: 4,
      vocab_size: 8192,
      aux_loss_weight: 0.01,
      bos_token_id: 0,
      eos_token_id: 0,
    }),
    B: 16,
    T: 512,
    repeats: 3,
  },
];

function shapesOfDevice(): readonly Shape[] {
  if (benchDevice === 'cpu') return shapes;
  if (isEmulated()) return [{ name: 'tiny', config: presetConfig('tiny'), B: 1, T: 8, repeats: 1 }];
  const molm = new ModuleFormerConfig({ ...presetConfig('MoLM-350M-4B').toJSON(), n_layer: 2 });
  return [...shapes, { name: 'MoLM-350M-4B, 2 blocks', config: molm, B: 32, T: 512, repeats: 5 }];
}

/** Bytes that AdamW reads and writes for one parameter: w, g, m, v read and w, m, v written; bf16 has an f32 master. */
const ADAMW_BYTES = { f32: 28, bf16: 28 } as const;
const ADAMW_TIMES = 5;

/** Floating-point operations of one step: 6 per active parameter and token, and causal attention forward and backward. */
export function stepFlops(config: ModuleFormerConfig, tokens: number, length: number): number {
  const { active } = countParameters(config);
  // The active count has the looked-up row of the embedding, where nothing is multiplied.
  const parameters = 6 * (active - config.n_embd) * tokens;
  // Forward: q.k and a.v over half of the T x T pairs, 2 flops each; backward 2.5 times that (it computes q.k again).
  const forward = (4 * config.k_att * config.att_hidden * tokens * (length + 1)) / 2;
  return parameters + config.n_layer * 3.5 * forward;
}

/** Share of the read + write bandwidth that AdamW's update gets, with the gradients of `model` in place. */
async function timeAdamW(
  optimizer: AdamW,
  parameters: number,
  dtype: keyof typeof ADAMW_BYTES,
): Promise<number> {
  const finite = tensor(Int32Array.of(1), { device: benchDevice });
  const run = (): void => optimizer.step(finite);
  const work = ADAMW_BYTES[dtype] * parameters;
  const { share } = await timeAgainstPeak(run, { kind: 'readWrite', work, repeats: ADAMW_TIMES });
  finite.dispose();
  return share;
}

async function measure(shape: Shape, dtype: 'f32' | 'bf16'): Promise<Section['rows'][0]> {
  const { name, config, B, T, repeats } = shape;
  const { total } = countParameters(config);
  const model = new ModuleFormerForCausalLM(config, { dtype, device: benchDevice, seed: 1 }).train();
  const optimizer = new AdamW(model.parameters(), { lr: 1e-4, weightDecay: 0.1 });
  const random = createRandom(7);
  const ids = Int32Array.from({ length: B * T }, () => Math.floor(random.next() * config.vocab_size));
  const inputIds = tensor(ids, { shape: [B, T], device: benchDevice });
  let loss = NaN;
  const backward = () => {
    const output = model.forward({ inputIds, labels: inputIds, outputLogits: false });
    output.loss?.backward();
    return output.loss;
  };
  const busy: number[] = [];
  const step = async (): Promise<void> => {
    const [start, before] = [performance.now(), mainThreadSeconds()];
    const value = scope(() => {
      const result = backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      return result;
    });
    loss = (await value?.item()) ?? NaN;
    value?.dispose();
    const [seconds, after] = [(performance.now() - start) / 1000, mainThreadSeconds()];
    if (before !== null && after !== null) busy.push((after - before) / seconds);
  };
  const timing = await timeAgainstPeak(step, { kind: 'f32', work: stepFlops(config, B * T, T), repeats });
  const stats = native.memoryStats();
  const bf16Peak = measurePeak('bf16');
  scope(backward);
  const adamw = await timeAdamW(optimizer, total, dtype);
  const tokens = B * T;
  const row: Section['rows'][0] = {
    shape: name,
    dtype,
    N: tokens,
    'tokens/s': Math.round(tokens / timing.seconds),
    's/step': Number(timing.seconds.toFixed(3)),
    'MFU, share of f32 peak': Number(timing.share.toFixed(3)),
    'MFU, share of bf16 peak': Number(((timing.share * timing.peak) / bf16Peak).toFixed(3)),
    'f32 peak GF/s': Math.round(timing.peak / 1e9),
    'JavaScript and N-API, % of a step': Number((100 * median(busy)).toFixed(2)),
    'AdamW, share of read+write bandwidth': Number(adamw.toFixed(2)),
    'bytes per parameter': Number((stats.live / total).toFixed(1)),
    'KB per token': Number(((stats.peak - stats.live) / tokens / 1e3).toFixed(0)),
    'peak memory MB': Math.round(stats.peak / 1e6),
    loss: Number(loss.toFixed(3)),
  };
  optimizer.zeroGrad();
  for (const [, state] of optimizer.namedState()) state.dispose();
  inputIds.dispose();
  model.dispose();
  native.trimMemory();
  native.resetPeakMemory();
  return row;
}

/**
 * Training steps in f32 and bf16: tokens/s; MFU, the share of the FMA peak that the model's operations use; what
 * JavaScript costs; the optimizer against the memory; memory. "Bytes per parameter" is what is held between steps
 * (parameters and the optimizer's state), "KB per token" what a step needs beyond (activations and gradients).
 */
export async function run(): Promise<Section> {
  const rows: Section['rows'] = [];
  for (const shape of shapesOfDevice())
    for (const dtype of ['f32', 'bf16'] as const) rows.push(await measure(shape, dtype));
  return { name: 'train: a step with clipping and AdamW, K 2, T 512', rows };
}

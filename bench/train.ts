import type { ModuleFormerConfig } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { native } from '../lib/native/load.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';
import { createRandom } from '../lib/data/random.js';
import { timeAgainstPeak, type Section } from './support/measure.js';

const B = 4;
const T = 512;

/** Floating-point operations of one step: 6 per active parameter and token, and causal attention forward and backward. */
export function stepFlops(config: ModuleFormerConfig, tokens: number, length: number): number {
  const { active } = countParameters(config);
  // The active count has the looked-up row of the embedding, where nothing is multiplied.
  const parameters = 6 * (active - config.n_embd) * tokens;
  // Forward: q.k and a.v over half of the T x T pairs, 2 flops each; backward 2.5 times that (it computes q.k again).
  const forward = (4 * config.k_att * config.att_hidden * tokens * (length + 1)) / 2;
  return parameters + config.n_layer * 3.5 * forward;
}

/** One training step of the `base` preset in f32 and bf16: tokens/s and the share of the FMA peak that the model's operations use. */
export async function run(): Promise<Section> {
  const config = presetConfig('base');
  const rows: Section['rows'] = [];
  for (const dtype of ['f32', 'bf16'] as const) {
    const model = new ModuleFormerForCausalLM(config, { dtype, seed: 1 }).train();
    const optimizer = new AdamW(model.parameters(), { lr: 1e-4, weightDecay: 0.1 });
    const random = createRandom(7);
    const ids = Int32Array.from({ length: B * T }, () => Math.floor(random.next() * config.vocab_size));
    const inputIds = tensor(ids, { shape: [B, T] });
    let loss = NaN;
    const step = async (): Promise<void> => {
      const value = scope(() => {
        const output = model.forward({ inputIds, labels: inputIds, outputLogits: false });
        output.loss?.backward();
        clipGradNorm(model.parameters(), 1);
        optimizer.step();
        optimizer.zeroGrad();
        return output.loss;
      });
      loss = (await value?.item()) ?? NaN;
      value?.dispose();
    };
    const work = stepFlops(config, B * T, T);
    const timing = await timeAgainstPeak(step, { kind: 'f32', work, repeats: 5 });
    rows.push({
      dtype,
      'tokens/s': Math.round((B * T) / timing.seconds),
      's/step': Number(timing.seconds.toFixed(3)),
      'share of f32 peak': Number(timing.share.toFixed(3)),
      'f32 peak GF/s': Math.round(timing.peak / 1e9),
      'peak memory MB': Math.round(native.memoryStats().peak / 1e6),
      loss: Number(loss.toFixed(3)),
    });
    model.dispose();
    native.trimMemory();
    native.resetPeakMemory();
  }
  return { name: `train: base preset (D 512, L 6, E 8/16, K 2, V 8192), ${B} x ${T} tokens`, rows };
}

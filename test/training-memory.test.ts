import test from 'ava';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { native } from '../lib/native/load.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';

const config = new ModuleFormerConfig({
  ...{
    vocab_size: 512,
    n_embd: 128,
    n_layer: 3,
    n_head: 1,
    att_hidden: 128,
    ffd_hidden: 256,
    gating_size: 32,
  },
  ...{ n_att_experts: 4, n_mlp_experts: 8 },
});
const { total } = countParameters(config);
/** The allocator rounds up: by at most an eighth, small tensors to 64 bytes. */
const ROUNDING = 1.125;

/** Bytes held after two steps over `tokens` tokens, and the most that the second step took beyond them. */
async function bytesOf(dtype: 'f32' | 'bf16', tokens: number): Promise<{ held: number; step: number }> {
  const before = native.memoryStats().live;
  const model = new ModuleFormerForCausalLM(config, { dtype, seed: 1 }).train();
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 });
  const inputIds = [Array.from({ length: tokens }, (_, t) => (t * 7) % config.vocab_size)];
  for (let step = 0; step < 2; step++) {
    native.resetPeakMemory();
    scope(() => {
      model.forward({ inputIds, labels: inputIds, outputLogits: false }).loss?.backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
    });
    await native.synchronize();
  }
  const { live, peak } = native.memoryStats();
  for (const [, state] of optimizer.namedState()) state.dispose();
  model.dispose();
  return { held: live - before, step: peak - live };
}

for (const [dtype, bytes] of [
  ['f32', 4 + 8], // the parameter, m and v
  ['bf16', 2 + 4 + 8], // and the parameter in f32
] as const) {
  test.serial(`training in ${dtype} holds ${bytes} bytes a parameter between steps`, async (t) => {
    const { held } = await bytesOf(dtype, 64);
    t.true(held >= bytes * total, `${held / total}`);
    t.true(held <= bytes * total * ROUNDING, `${held / total}`);
  });

  test.serial(`a step in ${dtype} takes gradients and memory in proportion to its tokens`, async (t) => {
    const [few, many] = [await bytesOf(dtype, 256), await bytesOf(dtype, 1024)];
    const perToken = (many.step - few.step) / (1024 - 256);
    // Per block and token below 40 rows of D and 8 of F, as wide as f32.
    const { n_layer, n_embd, ffd_hidden } = config;
    const bound = 4 * n_layer * (40 * n_embd + 8 * ffd_hidden);
    t.true(perToken > 0 && perToken < bound, `${perToken} bytes a token, expected below ${bound}`);
  });
}

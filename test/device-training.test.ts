// Training and generation on MODULEFORMER_TEST_DEVICE, against the same in float64 on the CPU.
import test from 'ava';
import { createRandom } from '../lib/data/random.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { quantize } from '../lib/model/quantize.js';
import type { Device, FloatDType } from '../lib/native/binding.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';
import { testDevice } from './support/device.js';

const [B, T, V, STEPS] = [3, 16, 61, 20];
// A width of heads that fills no tile, experts that fill none, and one that does not divide by 8.
const config = new ModuleFormerConfig({
  vocab_size: V,
  n_embd: 32,
  n_layer: 1,
  n_head: 2,
  att_hidden: 48,
  ffd_hidden: 40,
  gating_size: 12,
  n_att_experts: 4,
  k_att: 2,
  n_mlp_experts: 6,
  k_mlp: 2,
  embd_pdrop: 0.1,
  resid_pdrop: 0.1,
  moe_pdrop: 0.1,
  aux_loss_weight: 0.01,
  initializer_range: 0.2,
  bos_token_id: 0,
  eos_token_id: 0,
});

/** Sequences of one rule, next = 3 id + 7 mod V, with some noise: the loss falls within 20 steps. */
function batches(): Int32Array[] {
  const random = createRandom(17);
  return Array.from({ length: STEPS }, () => {
    const ids = new Int32Array(B * T);
    for (let i = 0; i < ids.length; i++) {
      const fresh = i % T === 0 || random.next() < 0.05;
      ids[i] = fresh ? Math.floor(random.next() * V) : (3 * (ids[i - 1] as number) + 7) % V;
    }
    return ids;
  });
}

interface Run {
  losses: number[];
  /** The bytes of all parameters after the last step. */
  weights: string;
}

async function train(device: Device, dtype: FloatDType): Promise<Run> {
  using model = new ModuleFormerForCausalLM(config, { dtype, device, seed: 3 });
  model.train();
  const optimizer = new AdamW(model.parameters(), { lr: 1e-2, weightDecay: 0.1 });
  const losses: number[] = [];
  for (const ids of batches()) {
    const loss = scope(() => {
      const inputIds = tensor(ids, { shape: [B, T], device });
      const { loss } = model.forward({ inputIds, labels: inputIds, outputLogits: false });
      loss?.backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      return loss;
    });
    losses.push((await loss?.item()) ?? NaN);
    loss?.dispose();
  }
  const bytes = await Promise.all([...model.parameters()].map((parameter) => parameter.bytes()));
  for (const [, state] of optimizer.namedState()) state.dispose();
  return { losses, weights: Buffer.concat(bytes).toString('base64') };
}

const exact = train('cpu', 'f64');

for (const [dtype, tolerance] of [
  ['f64', 1e-7],
  ['f32', 1e-3],
  ['bf16', 8e-2],
] as const) {
  test(`${STEPS} steps in ${dtype}: the losses of f64 on the CPU, and the same bits twice`, async (t) => {
    t.timeout(1_800_000);
    const { losses: expected } = await exact;
    const first = await train(testDevice, dtype);
    t.is(first.losses.length, STEPS);
    for (const [step, loss] of first.losses.entries()) {
      const error = Math.abs(loss / (expected[step] as number) - 1);
      t.true(error <= tolerance, `step ${step}: loss ${loss}, expected ${expected[step]} (${error})`);
    }
    t.true((first.losses.at(-1) as number) < 0.8 * (first.losses[0] as number), String(first.losses));
    const second = await train(testDevice, dtype);
    t.deepEqual(second.losses, first.losses);
    t.is(second.weights, first.weights);
  });
}

test('sampled tokens are those of the CPU', async (t) => {
  const make = (device: Device) => new ModuleFormerForCausalLM(config, { dtype: 'f64', device, seed: 5 });
  using model = make(testDevice);
  using reference = make('cpu');
  const inputIds = [
    [5, 22, 12, 43],
    [9, 34, 48, 29],
  ];
  for (const options of [
    { temperature: 0.8, topK: 20, seed: 1 },
    { temperature: 1.1, topP: 0.9, repetitionPenalty: 1.2, seed: 2 },
  ]) {
    const [ids, expected] = await Promise.all(
      [model, reference].map((each) =>
        each.generate({ inputIds, maxNewTokens: 12, stopTokens: [], ...options }),
      ),
    );
    t.deepEqual(ids, expected);
  }
});

test('a quantized model generates what the CPU does with its weights', async (t) => {
  const widths = { ...config.toJSON(), n_embd: 64, att_hidden: 64, ffd_hidden: 128 };
  const make = (device: Device) =>
    new ModuleFormerForCausalLM(new ModuleFormerConfig(widths), { dtype: 'f32', device, seed: 5 });
  using model = make(testDevice);
  using reference = make('cpu');
  for (const each of [model, reference]) quantize(each);
  const options = { inputIds: [[5, 22, 12, 43, 8, 1]], maxNewTokens: 12, temperature: 0, stopTokens: [] };
  t.deepEqual(await model.generate(options), await reference.generate(options));
});

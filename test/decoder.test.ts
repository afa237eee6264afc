import test, { type ExecutionContext } from 'ava';
import { noGrad, reshape, sampleToken } from '../lib/autograd/index.js';
import { KernelError } from '../lib/errors.js';
import type { GenerationOptions } from '../lib/generation/options.js';
import { padLeft } from '../lib/generation/prompt.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { DenseConfig, type DenseConfigInit } from '../lib/model/dense-config.js';
import { DenseForCausalLM } from '../lib/model/dense.js';
import { KeyValueCache } from '../lib/model/key-value-cache.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { quantize } from '../lib/model/quantize.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { testDevice as device } from './support/device.js';
import { shake } from './support/gradient-check.js';

type Model = ModuleFormerForCausalLM | DenseForCausalLM;
type Options = GenerationOptions & { inputIds: number[][]; attentionMask?: number[][] };

const V = 40;

/** Every token by a pass of its own, with nothing recorded: what `generate` is to give, bit by bit. */
async function eagerly(model: Model, options: Options): Promise<number[][]> {
  const { maxNewTokens, temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1, seed = 0 } = options;
  const ids = options.inputIds.map((row) => [...row]);
  const mask = options.attentionMask?.map((row) => [...row]);
  const [B, T] = [ids.length, ids[0]!.length];
  const cache = new KeyValueCache(T + maxNewTokens - 1);
  for (let step = 0; step < maxNewTokens; step++) {
    const drawn = scope(() =>
      noGrad(() => {
        const { logits } = model.forward({
          inputIds: step === 0 ? ids : ids.map((row) => row.slice(-1)),
          ...(mask ? { attentionMask: mask } : {}),
          cache,
          lastLogitsOnly: true,
        });
        const text = ids.map((row, b) => row.map((id, t) => (mask?.[b]?.[t] === 0 ? -1 : id)));
        return sampleToken(reshape(logits as Tensor, [B, V]), {
          ...{ temperature, topK, topP, repetitionPenalty },
          history: tensor(text, { dtype: 'i32', device }),
          key: [seed, step],
        });
      }),
    );
    const tokens = await drawn.data();
    drawn.dispose();
    ids.forEach((row, b) => row.push(Number(tokens[b])));
    mask?.forEach((row) => row.push(1));
  }
  cache.dispose();
  return ids.map((row) => row.slice(T));
}

const prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]];

async function replayedEqualsEager(t: ExecutionContext, model: Model): Promise<void> {
  for (const batch of [{ inputIds: [[3, 1, 4]] }, padLeft(prompts)]) {
    for (const sampling of [
      { temperature: 0 },
      { temperature: 1.2, seed: 5 },
      { temperature: 0.9, topK: 20, topP: 0.9, repetitionPenalty: 1.3, seed: 6 },
    ]) {
      const options = { ...batch, ...sampling, maxNewTokens: device === 'cpu' ? 70 : 6, stopTokens: [] };
      t.deepEqual(await model.generate(options), await eagerly(model, options));
    }
  }
}

async function sparse(
  more: ModuleFormerConfigInit,
  dtype: 'f64' | 'f32' | 'bf16' = 'f32',
): Promise<ModuleFormerForCausalLM> {
  const config = new ModuleFormerConfig({
    ...{ vocab_size: V, n_embd: 64, n_layer: 2, n_head: 1, att_hidden: 64, ffd_hidden: 64, gating_size: 8 },
    ...{ n_att_experts: 4, n_mlp_experts: 5, initializer_range: 0.5, ...more },
  });
  const model = new ModuleFormerForCausalLM(config, { dtype, device, seed: 3 });
  await shake(model, 0.3);
  return model;
}

async function dense(more: DenseConfigInit, dtype: 'f32' | 'bf16' = 'f32'): Promise<DenseForCausalLM> {
  const shape = { vocab_size: V, n_embd: 64, n_layer: 2, n_head: 2, initializer_range: 0.3, ...more };
  const model = new DenseForCausalLM(new DenseConfig(shape), { dtype, device, seed: 3 });
  await shake(model, 0.2);
  return model;
}

test('replayed steps give the bits of eager ones: mixtures', async (t) => {
  for (const [more, dtype] of [
    [{}, 'f32'],
    [{}, 'bf16'],
    [{}, 'f64'],
    [{ n_head: 2, gate_type: 'linear' }, 'bf16'],
    [{ gate_type: 'gmm', attend_current: false, attend_remainder: true }, 'f32'],
  ] as const) {
    using model = await sparse(more, dtype);
    await replayedEqualsEager(t, model);
  }
});

test('replayed steps give the bits of eager ones: dense', async (t) => {
  for (const [more, dtype] of [
    [{}, 'f32'],
    [{ use_parallel_residual: false }, 'bf16'],
    [{ attention_type: 'stickbreaking' }, 'f32'],
  ] as const) {
    using model = await dense(more, dtype);
    await replayedEqualsEager(t, model);
  }
});

test('replayed steps give the bits of eager ones: 8-bit weights', async (t) => {
  for (const dtype of ['f32', 'bf16'] as const) {
    using model = await sparse({}, dtype);
    quantize(model, { groupSize: 64 });
    await replayedEqualsEager(t, model);
  }
});

test.serial('outputs that were never written are not read by a replay', async (t) => {
  using model = await sparse({});
  const options = { ...padLeft(prompts), maxNewTokens: 9, repetitionPenalty: 1.2, stopTokens: [] };
  const expected = await model.generate(options);
  native.poisonOutputs(true);
  try {
    t.deepEqual(await model.generate(options), expected);
  } finally {
    native.poisonOutputs(false);
  }
});

/** The first of them may have been on its way. */
async function nextTwo(stream: AsyncGenerator<number>): Promise<void> {
  await stream.next();
  await stream.next();
}

test.serial('a kernel that fails in a replay ends generation with its name', async (t) => {
  using model = await sparse({});
  const { live } = native.memoryStats();
  const stream = model.stream({ inputIds: [[1, 2]], maxNewTokens: 9, stopTokens: [] });
  for (let step = 0; step < 4; step++) await stream.next();
  native.failNext('groupedGemm');
  await t.throwsAsync(nextTwo(stream), { instanceOf: KernelError, message: /^groupedGemm: .*by a test/ });
  t.is(native.memoryStats().live, live);
  t.is((await model.generate({ inputIds: [[1, 2]], maxNewTokens: 9, stopTokens: [] }))[0]?.length, 9);
});

test('parameters may change between tokens', async (t) => {
  using model = await sparse({});
  const weight = [...model.namedParameters()].find(([name]) => name === 'lm_head.weight')![1];
  const stream = model.stream({ inputIds: [[1, 2]], maxNewTokens: 9, temperature: 0, stopTokens: [] });
  for (let step = 0; step < 4; step++) await stream.next();
  const D = weight.shape[1]!;
  const rows = new Float32Array(weight.numel);
  rows.fill(NaN, 7 * D, 8 * D);
  native.write(weight.id, rows, 0);
  // Where a step is one launch of a graph, it is that which fails.
  const message = device === 'cpu' ? /^sampleToken: .*NaN/ : /^(sampleToken|replay): .*NaN/;
  await t.throwsAsync(nextTwo(stream), { instanceOf: KernelError, message });
});

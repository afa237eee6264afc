import test, { type ExecutionContext } from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import { KernelError, ShapeError, ValueError } from '../lib/errors.js';
import type { GenerationOptions } from '../lib/generation/options.js';
import { padLeft } from '../lib/generation/prompt.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { DenseConfig } from '../lib/model/dense-config.js';
import { DenseForCausalLM } from '../lib/model/dense.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { synchronize } from '../lib/system.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { shake } from './support/gradient-check.js';

type Model = ModuleFormerForCausalLM | DenseForCausalLM;

const V = 19;
const fields = {
  vocab_size: V,
  n_embd: 16,
  n_layer: 2,
  n_head: 2,
  att_hidden: 16,
  ffd_hidden: 12,
  gating_size: 8,
  n_att_experts: 4,
  n_mlp_experts: 4,
  bos_token_id: 0,
  eos_token_id: 0,
  initializer_range: 0.5,
} as const satisfies ModuleFormerConfigInit;

async function makeModel(more: ModuleFormerConfigInit = {}, dtype: 'f64' | 'f32' | 'bf16' = 'f64') {
  const model = new ModuleFormerForCausalLM(new ModuleFormerConfig({ ...fields, ...more }), {
    dtype,
    seed: 11,
  });
  await shake(model, 0.4);
  return model;
}

async function makeDense(): Promise<DenseForCausalLM> {
  const config = new DenseConfig({
    vocab_size: V,
    n_embd: 16,
    n_layer: 2,
    n_head: 2,
    initializer_range: 0.5,
  });
  const model = new DenseForCausalLM(config, { dtype: 'f64', seed: 11 });
  await shake(model, 0.4);
  return model;
}

const greedy = { temperature: 0, stopTokens: [] } as const;
const prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]];

/** The most probable continuation of one prompt by whole passes over the growing text. */
async function uncachedGreedy(model: Model, prompt: readonly number[], count: number): Promise<number[]> {
  const ids = [...prompt];
  for (let step = 0; step < count; step++) {
    const logits = scope(() =>
      noGrad(() => model.forward({ inputIds: [ids], lastLogitsOnly: true }).logits as Tensor),
    );
    const values = Array.from(await logits.data(), Number);
    logits.dispose();
    ids.push(values.indexOf(Math.max(...values)));
  }
  return ids.slice(prompt.length);
}

async function batchEqualsSingles(t: ExecutionContext, model: Model): Promise<void> {
  const together = await model.generate({ ...padLeft(prompts), maxNewTokens: 12, ...greedy });
  for (const [b, prompt] of prompts.entries()) {
    t.deepEqual(together[b], await uncachedGreedy(model, prompt, 12));
  }
  t.true(new Set(together.flat()).size > 2, 'a text that says nothing');
}

test('greedy: with the cache, in a padded batch, as without both', async (t) => {
  for (const more of [
    {},
    { n_head: 1 },
    { gate_type: 'gmm', attend_current: false, attend_remainder: true } as const,
  ]) {
    using model = await makeModel(more);
    await batchEqualsSingles(t, model);
  }
});

test('greedy of a dense model: with the cache, in a padded batch, as without both', async (t) => {
  using model = await makeDense();
  await batchEqualsSingles(t, model);
});

test('the same seed gives the same text with any number of threads, another seed another text', async (t) => {
  using model = await makeModel({}, 'f32');
  const draw = (seed?: number) =>
    model.generate({
      inputIds: [
        [1, 2, 3],
        [4, 5, 6],
      ],
      maxNewTokens: 30,
      temperature: 1.3,
      topK: 15,
      topP: 0.95,
      repetitionPenalty: 1.1,
      stopTokens: [],
      ...(seed === undefined ? {} : { seed }),
    });
  const first = await draw();
  t.deepEqual(await draw(0), first);
  const threads = native.numThreads();
  try {
    for (const count of [1, 2, 4]) {
      native.setNumThreads(count);
      t.deepEqual(await draw(), first);
    }
  } finally {
    native.setNumThreads(threads);
  }
  t.notDeepEqual(await draw(1), first);
});

test('options have their effect', async (t) => {
  using model = await makeModel();
  const base = { inputIds: [[1, 2, 3]], maxNewTokens: 12, stopTokens: [] };
  const best = await model.generate({ ...base, temperature: 0 });
  t.deepEqual(await model.generate({ ...base, topK: 1 }), best);
  t.deepEqual(await model.generate({ ...base, topP: 1e-9 }), best);
  t.deepEqual(await model.generate({ ...base, temperature: 1e-6 }), best);
  t.notDeepEqual(await model.generate({ ...base, temperature: 5 }), best);
  // A penalty beyond all logits leaves each token once, as long as there are others.
  const [row] = await model.generate({ ...base, temperature: 0, repetitionPenalty: 1e6 });
  t.is(new Set([1, 2, 3, ...(row ?? [])]).size, 15);
});

test('padding does not count as text so far', async (t) => {
  using model = await makeModel();
  const options = { maxNewTokens: 15, temperature: 0, repetitionPenalty: 1e6, stopTokens: [] };
  const [alone] = await model.generate({ inputIds: [[1, 2]], ...options });
  const [padded] = await model.generate({
    ...padLeft(
      [
        [1, 2],
        [3, 4, 5],
      ],
      7,
    ),
    ...options,
  });
  t.deepEqual(padded, alone);
});

test('a row ends with its stop token, the others go on', async (t) => {
  using model = await makeModel();
  const endless = await model.generate({ ...padLeft(prompts), maxNewTokens: 12, ...greedy });
  const stop = endless[0]?.[3] as number;
  const cut = (row: readonly number[]): number[] =>
    row.includes(stop) ? row.slice(0, row.indexOf(stop) + 1) : [...row];
  const stopped = await model.generate({
    ...padLeft(prompts),
    maxNewTokens: 12,
    temperature: 0,
    stopTokens: [stop],
  });
  t.deepEqual(stopped, endless.map(cut));
  t.true(new Set(stopped.map((row) => row.length)).size > 1, 'all rows end at once');

  // By default the stop token is the config's.
  using other = await makeModel({ eos_token_id: stop });
  const byDefault = await other.generate({ ...padLeft(prompts), maxNewTokens: 12, temperature: 0 });
  t.deepEqual(byDefault, stopped);
});

test('an end token outside the vocabulary stops nothing', async (t) => {
  using model = await makeModel({ eos_token_id: 50256 });
  const [row] = await model.generate({ inputIds: [[1]], maxNewTokens: 5, temperature: 0 });
  t.is(row?.length, 5);
});

test('streams give the same tokens as they come', async (t) => {
  using model = await makeModel();
  const options = { inputIds: [[3, 1, 4]], maxNewTokens: 6, seed: 4, stopTokens: [] };
  const tokens: number[] = [];
  for await (const token of model.stream(options)) tokens.push(token);
  t.deepEqual([tokens], await model.generate(options));

  const batch = { ...padLeft(prompts), maxNewTokens: 6, seed: 4, stopTokens: [] };
  const steps: (number | null)[][] = [];
  for await (const step of model.streamBatch(batch)) steps.push(step);
  t.is(steps.length, 6);
  t.deepEqual(
    prompts.map((_, b) => steps.map((step) => step[b])),
    await model.generate(batch),
  );
  await t.throwsAsync(model.stream(batch).next(), {
    instanceOf: ShapeError,
    message: /3 prompts, expected one/,
  });
});

test('tensors are taken as prompts', async (t) => {
  using model = await makeModel();
  const inputIds = [
    [0, 3, 1],
    [2, 6, 5],
  ];
  const attentionMask = [
    [0, 1, 1],
    [1, 1, 1],
  ];
  const expected = await model.generate({ inputIds, attentionMask, maxNewTokens: 5, ...greedy });
  const asTensors = {
    inputIds: tensor(inputIds, { dtype: 'i64' }),
    attentionMask: tensor(attentionMask, { dtype: 'i32' }),
  };
  t.deepEqual(await model.generate({ ...asTensors, maxNewTokens: 5, ...greedy }), expected);
});

test.serial('leaving a stream frees everything', async (t) => {
  using model = await makeModel();
  const before = native.memoryStats().tensors;
  for await (const token of model.stream({ inputIds: [[1]], maxNewTokens: 1000, stopTokens: [] })) {
    t.true(native.memoryStats().tensors > before);
    if (token >= 0) break;
  }
  t.is(native.memoryStats().tensors, before);
});

test.serial('memory stays flat from token to token', async (t) => {
  using model = await makeModel();
  const seen: number[] = [];
  for await (const token of model.stream({
    inputIds: [[1]],
    maxNewTokens: 60,
    stopTokens: [],
    repetitionPenalty: 1.2,
  })) {
    if (token >= 0) seen.push(native.memoryStats().tensors);
  }
  // From the second token on, when the step is recorded.
  t.is(new Set(seen.slice(1)).size, 1);
});

test.serial('a stop token ends generation, whatever was enqueued behind it', async (t) => {
  using model = await makeModel();
  const { live } = native.memoryStats();
  const options = { inputIds: [[1, 2, 3]], maxNewTokens: 60, ...greedy };
  const [all = []] = await model.generate({ ...options, stopTokens: [] });
  const stop = all[5] as number;
  const ended = all.slice(0, all.indexOf(stop) + 1);
  for (let i = 0; i < 3; i++) t.deepEqual(await model.generate({ ...options, stopTokens: [stop] }), [ended]);
  await synchronize();
  t.is(native.memoryStats().live, live);
});

test('a model in training generates as in evaluation, and trains on in between', async (t) => {
  using model = await makeModel({ resid_pdrop: 0.5, sample_topk: 1 });
  const options = { inputIds: [[1, 2, 3]], maxNewTokens: 8, ...greedy };
  const expected = await model.generate(options);
  model.train();
  const tokens: number[] = [];
  for await (const token of model.stream(options)) {
    t.true(model.training);
    t.true(model.forward({ inputIds: [[1, 2]], labels: [[1, 2]] }).loss?.requiresGrad);
    tokens.push(token);
  }
  t.deepEqual([tokens], expected);
});

test('two generations at once do not disturb each other', async (t) => {
  using model = await makeModel();
  const one = { inputIds: [[1, 2, 3]], maxNewTokens: 10, seed: 1, stopTokens: [] };
  const two = {
    inputIds: [
      [7, 8],
      [9, 10],
    ],
    maxNewTokens: 14,
    seed: 2,
    stopTokens: [],
  };
  const apart = [await model.generate(one), await model.generate(two)];
  t.deepEqual(await Promise.all([model.generate(one), model.generate(two)]), apart);
});

test.serial('a signal ends generation with its reason', async (t) => {
  using model = await makeModel();
  const before = native.memoryStats().tensors;
  const options = { inputIds: [[1]], maxNewTokens: 1_000, stopTokens: [] };
  const reason = new Error('enough');
  await t.throwsAsync(model.generate({ ...options, signal: AbortSignal.abort(reason) }), { is: reason });
  const thrown: unknown = await model
    .generate({ ...options, signal: AbortSignal.abort() })
    .catch((e: unknown) => e);
  t.is((thrown as Error).name, 'AbortError');

  const controller = new AbortController();
  const tokens: number[] = [];
  const run = async (): Promise<void> => {
    for await (const token of model.stream({ ...options, signal: controller.signal })) {
      if (tokens.push(token) === 3) controller.abort(reason);
    }
  };
  await t.throwsAsync(run(), { is: reason });
  t.is(tokens.length, 3);

  const late = new AbortController();
  const waiting = model.generate({ ...options, signal: late.signal });
  setImmediate(() => late.abort(reason));
  await t.throwsAsync(waiting, { is: reason });
  await native.synchronize();
  await new Promise((resolve) => setImmediate(resolve));
  t.is(native.memoryStats().tensors, before);
});

test('options out of range are refused before anything runs', async (t) => {
  using model = await makeModel();
  const refused: [Partial<GenerationOptions>, RegExp][] = [
    [{ temperature: -1 }, /temperature is -1, expected 0 or a positive number/],
    [{ temperature: NaN }, /temperature is NaN/],
    [{ temperature: Infinity }, /temperature is Infinity/],
    [{ topK: -1 }, /topK is -1/],
    [{ topK: 1.5 }, /topK is 1\.5/],
    [{ topP: 0 }, /topP is 0, expected a number above 0 and at most 1/],
    [{ topP: 1.1 }, /topP is 1\.1/],
    [{ topP: NaN }, /topP is NaN/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty is 0/],
    [{ repetitionPenalty: NaN }, /repetitionPenalty is NaN/],
    [{ seed: -1 }, /seed is -1/],
    [{ seed: 0.5 }, /seed is 0\.5/],
    [{ maxNewTokens: 0 }, /maxNewTokens is 0, expected a positive integer/],
    [{ maxNewTokens: NaN }, /maxNewTokens is NaN/],
    [{ maxNewTokens: '8' as unknown as number }, /maxNewTokens is 8/],
    [{ stopTokens: [V] }, /stopTokens is 19, expected ids in the vocabulary of 19/],
    [{ stopTokens: [-1] }, /stopTokens is -1/],
    [{ inputIds: [[1, V]] }, /id 19/],
    [
      { inputIds: [[1, 2]], attentionMask: [[1, 0]] },
      /row 0 of attentionMask has padding after a token; pad on the left/,
    ],
    [{ inputIds: [[1, 2, 3]], attentionMask: [[1, 0, 1]] }, /padding after a token/],
    [{ inputIds: [[1, 2]], attentionMask: [[0, 0]] }, /row 0 of attentionMask leaves no token/],
    [{ inputIds: [[1, 2]], attentionMask: [[0, 2]] }, /attentionMask has 2 in row 0/],
  ];
  for (const [options, message] of refused) {
    await t.throwsAsync(model.generate({ inputIds: [[1]], maxNewTokens: 2, ...options }), {
      instanceOf: ValueError,
      message,
    });
  }
  const misshapen: [Partial<GenerationOptions>, RegExp][] = [
    [{ inputIds: [] }, /inputIds is empty/],
    [{ inputIds: [[]] }, /inputIds is empty/],
    [{ inputIds: [[1, 2], [3]] }, /row 1 of inputIds has 1 entries, row 0 has 2/],
    [{ inputIds: [[1, 2]], attentionMask: [[1]] }, /attentionMask has shape \[1, 1\], expected \[1, 2\]/],
    [{ inputIds: tensor([1, 2], { dtype: 'i32' }) }, /\[2\], expected \[B, T\]/],
  ];
  for (const [options, message] of misshapen) {
    await t.throwsAsync(model.generate({ inputIds: [[1]], maxNewTokens: 2, ...options }), {
      instanceOf: ShapeError,
      message,
    });
  }
  t.throws(() => padLeft([]), { instanceOf: ShapeError });
  t.throws(() => padLeft([[1], []]), { instanceOf: ShapeError });
});

test('weights that are not numbers end generation with an error', async (t) => {
  using model = await makeModel({}, 'f32');
  const [head] = [...model.namedParameters()].flatMap(([name, p]) => (name === 'lm_head.weight' ? [p] : []));
  const broken = new Float32Array(head?.numel ?? 0).fill(NaN);
  native.write((head as Tensor).id, broken, 0);
  await t.throwsAsync(model.generate({ inputIds: [[1]], maxNewTokens: 2 }), {
    instanceOf: KernelError,
    message: /sampleToken.*NaN/s,
  });
});

test('bf16 models generate', async (t) => {
  using model = await makeModel({}, 'bf16');
  const ids = await model.generate({ ...padLeft(prompts), maxNewTokens: 9, ...greedy });
  t.deepEqual(
    ids.map((row) => row.length),
    [9, 9, 9],
  );
});

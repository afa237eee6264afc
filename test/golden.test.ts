import test, { type ExecutionContext } from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import type { CausalLMInputs, CausalLMOutput } from '../lib/model/causal-lm.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import {
  ModuleFormerForSequenceClassification,
  type ClassificationOutput,
} from '../lib/model/sequence-classification.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import type { Tensor } from '../lib/tensor.js';
import { assertClose, relativeError } from './support/compare.js';
import { testDevice } from './support/device.js';
import { Golden, goldenDir, languageModelCases } from './support/golden.js';

// The cases hold scalars in float64 and larger tensors rounded to float32.
const tolerances = {
  f64: { scalar: 1e-9, tensor: 3e-7 },
  f32: { scalar: 1e-5, tensor: 1e-5 },
} as const;
const steps = 3;

type Model = ModuleFormerForCausalLM | ModuleFormerForSequenceClassification;

function languageModelInputs(golden: Golden): CausalLMInputs {
  const attentionMask = golden.rows('attention_mask');
  return {
    inputIds: golden.rows('input_ids') as number[][],
    labels: golden.rows('labels') as number[][],
    ...(attentionMask ? { attentionMask } : {}),
  };
}

async function compareScalar(
  t: ExecutionContext,
  actual: Tensor,
  expected: number,
  tolerance: number,
  what: string,
): Promise<void> {
  const error = relativeError([await actual.item()], [expected]);
  t.true(error <= tolerance, `${what}: relative error ${error} above ${tolerance}`);
}

async function compareOutput(
  t: ExecutionContext,
  out: CausalLMOutput | ClassificationOutput,
  golden: Golden,
  tolerance: number,
): Promise<void> {
  await assertClose(t, out.logits as Tensor, golden.get('logits'), tolerance, 'logits');
  const lists = { hidden_states: out.hiddenStates, attentions: out.attentions };
  for (const [name, tensors] of Object.entries(lists)) {
    const expected = golden.names.filter((key) => key.startsWith(`${name}.`));
    t.true(expected.length > 0);
    t.is(tensors?.length, expected.length, name);
    for (const [i, tensor] of (tensors ?? []).entries()) {
      await assertClose(t, tensor, golden.get(`${name}.${i}`), tolerance, `${name}.${i}`);
    }
  }
}

async function compareGradients(
  t: ExecutionContext,
  model: Model,
  golden: Golden,
  tolerance: number,
): Promise<void> {
  const expected = golden.names.filter((key) => key.startsWith('grad.')).map((key) => key.slice(5));
  t.deepEqual([...model.namedParameters()].map(([name]) => name).sort(), expected.sort());
  for (const [name, parameter] of model.namedParameters()) {
    t.truthy(parameter.grad, `${name} has no gradient`);
    await assertClose(t, parameter.grad as Tensor, golden.get(`grad.${name}`), tolerance, `grad.${name}`);
  }
}

/** Compares the gradients and their norm after `loss`, then takes the steps of AdamW. */
async function compareTraining(
  t: ExecutionContext,
  model: Model,
  golden: Golden,
  loss: () => Tensor,
  tolerance: { scalar: number; tensor: number },
): Promise<void> {
  const optimizer = new AdamW(model.parameters(), {
    lr: 1e-2,
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
  });
  for (let step = 0; step < steps; step++) {
    const value = loss();
    value.backward();
    const expected = golden.get('adamw.losses').data[step] as number;
    await compareScalar(t, value, expected, tolerance.scalar, `loss of step ${step}`);
    if (step === 0) await compareGradients(t, model, golden, tolerance.tensor);
    const norm = clipGradNorm(model.parameters(), 1.0);
    if (step === 0) {
      await compareScalar(t, norm, golden.get('grad_norm').data[0] as number, tolerance.scalar, 'grad_norm');
    }
    optimizer.step();
    optimizer.zeroGrad();
  }
}

for (const name of languageModelCases) {
  for (const dtype of ['f64', 'f32'] as const) {
    const tolerance = tolerances[dtype];

    test(`${name} ${dtype}: losses, logits, hidden states and attention weights`, async (t) => {
      const golden = await Golden.open(name);
      using model = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name), {
        dtype,
        device: testDevice,
      });
      const out = model.forward({
        ...languageModelInputs(golden),
        outputHiddenStates: true,
        outputAttentions: true,
      });
      await compareOutput(t, out, golden, tolerance.tensor);
      const loss = golden.get('loss').data[0] as number;
      const auxLoss = golden.get('aux_loss').data[0] as number;
      await compareScalar(t, out.loss as Tensor, loss, tolerance.scalar, 'loss');
      await compareScalar(t, out.auxLoss as Tensor, auxLoss, tolerance.scalar, 'aux_loss');
      const crossEntropy = loss - model.config.aux_loss_weight * auxLoss;
      await compareScalar(t, out.crossEntropy as Tensor, crossEntropy, tolerance.scalar, 'cross-entropy');
    });

    for (const outputLogits of [true, false]) {
      test(`${name} ${dtype}: gradients and AdamW ${outputLogits ? 'with' : 'without'} logits`, async (t) => {
        const golden = await Golden.open(name);
        using model = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name), {
          dtype,
          device: testDevice,
        });
        const inputs = { ...languageModelInputs(golden), outputLogits };
        await compareTraining(
          t,
          model,
          golden,
          () => model.train().forward(inputs).loss as Tensor,
          tolerance,
        );
      });
    }

    test(`${name} ${dtype}: greedy generation`, async (t) => {
      const golden = await Golden.open(name);
      using model = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name), {
        dtype,
        device: testDevice,
      });
      const inputIds = golden.rows('generate.prompt_ids') as number[][];
      const attentionMask = golden.rows('generate.attention_mask');
      const expected = golden.rows('generate.greedy_ids') as number[][];
      const maxNewTokens = (expected[0] as number[]).length;
      const ids = await model.generate({
        inputIds,
        ...(attentionMask ? { attentionMask } : {}),
        maxNewTokens,
        temperature: 0,
        stopTokens: [],
      });
      t.deepEqual(ids, expected);
      t.deepEqual(await uncachedGreedy(model, inputIds, attentionMask, maxNewTokens), expected);
    });
  }

  test(`${name} bf16: the loss, and logits with the experts of f32`, async (t) => {
    const golden = await Golden.open(name);
    using exact = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name), {
      dtype: 'f32',
      device: testDevice,
    });
    using model = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name), {
      dtype: 'bf16',
      device: testDevice,
    });
    const inputs = languageModelInputs(golden);
    const loss = noGrad(() => model.forward(inputs).loss as Tensor);
    await compareScalar(t, loss, golden.get('loss').data[0] as number, 1e-2, 'loss');
    const { routing } = noGrad(() => exact.forward(inputs));
    const imposed = noGrad(() => model.forward({ ...inputs, routing: routing ?? [] }));
    t.is(imposed.logits?.dtype, 'f32');
    await assertClose(t, imposed.logits as Tensor, golden.get('logits'), 3e-2, 'logits');
  });
}

/** The most probable continuation by whole passes over the growing text. */
async function uncachedGreedy(
  model: ModuleFormerForCausalLM,
  prompts: readonly (readonly number[])[],
  mask: readonly (readonly number[])[] | undefined,
  count: number,
): Promise<number[][]> {
  const rows = prompts.map((row) => [...row]);
  const masks = mask?.map((row) => [...row]);
  for (let step = 0; step < count; step++) {
    const logits = scope(() =>
      noGrad(
        () => model.forward({ inputIds: rows, ...(masks ? { attentionMask: masks } : {}) }).logits as Tensor,
      ),
    );
    const [, T, V] = logits.shape as [number, number, number];
    const values = Array.from(await logits.data(), Number);
    rows.forEach((row, b) => {
      const last = values.slice((b * T + T - 1) * V, (b * T + T) * V);
      row.push(last.indexOf(Math.max(...last)));
      masks?.[b]?.push(1);
    });
    logits.dispose();
  }
  return rows.map((row, b) => row.slice(prompts[b]?.length));
}

for (const dtype of ['f64', 'f32'] as const) {
  const tolerance = tolerances[dtype];

  test(`classification ${dtype}: loss, logits, hidden states and attention weights`, async (t) => {
    const golden = await Golden.open('classification');
    using model = await ModuleFormerForSequenceClassification.fromPretrained(goldenDir('classification'), {
      device: testDevice,
      dtype,
    });
    const out = model.forward({
      inputIds: golden.rows('input_ids') as number[][],
      labels: Array.from(golden.get('labels').data),
      outputHiddenStates: true,
      outputAttentions: true,
    });
    await compareOutput(t, out, golden, tolerance.tensor);
    const loss = golden.get('loss').data[0] as number;
    await compareScalar(t, out.loss as Tensor, loss, tolerance.scalar, 'loss');
    // The routers' losses are no part of it, but are there.
    const parts = (out.routers ?? []).flatMap(({ attention, mlp }) => [attention.losses, mlp.losses]);
    const balance = await Promise.all(parts.map(async (losses) => Number((await losses.data())[0])));
    const auxLoss = balance.reduce((sum, x) => sum + x, 0);
    const error = relativeError([auxLoss], golden.get('aux_loss').data);
    t.true(error <= tolerance.scalar, `aux_loss: relative error ${error}`);
  });

  test(`classification ${dtype}: gradients and AdamW`, async (t) => {
    const golden = await Golden.open('classification');
    using model = await ModuleFormerForSequenceClassification.fromPretrained(goldenDir('classification'), {
      device: testDevice,
      dtype,
    });
    const inputs = {
      inputIds: golden.rows('input_ids') as number[][],
      labels: Array.from(golden.get('labels').data),
    };
    await compareTraining(t, model, golden, () => model.train().forward(inputs).loss as Tensor, tolerance);
  });
}

test('classification bf16: the loss', async (t) => {
  const golden = await Golden.open('classification');
  using model = await ModuleFormerForSequenceClassification.fromPretrained(goldenDir('classification'), {
    device: testDevice,
    dtype: 'bf16',
  });
  const { loss } = model.forward({
    inputIds: golden.rows('input_ids') as number[][],
    labels: Array.from(golden.get('labels').data),
  });
  await compareScalar(t, loss as Tensor, golden.get('loss').data[0] as number, 1e-2, 'loss');
});

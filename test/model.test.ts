import test, { type ExecutionContext } from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import { ConfigError, DTypeError, HandleError, KernelError, ShapeError, ValueError } from '../lib/errors.js';
import type { CausalLMInputs } from '../lib/model/causal-lm.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import type { DenseForCausalLM } from '../lib/model/dense.js';
import { KeyValueCache } from '../lib/model/key-value-cache.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { ModuleFormerForSequenceClassification } from '../lib/model/sequence-classification.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { numbers, relativeError } from './support/compare.js';
import { shake } from './support/gradient-check.js';
import { denseKinds, inputIds, labelled, makeDense, makeModel, rows, tiny } from './support/models.js';

async function logitsOf(
  model: ModuleFormerForCausalLM | DenseForCausalLM,
  inputs: CausalLMInputs,
): Promise<number[][][]> {
  const logits = noGrad(() => model.forward(inputs).logits as Tensor);
  const [B, T, V] = logits.shape as [number, number, number];
  const flat = Array.from(await numbers(logits));
  logits.dispose();
  return Array.from({ length: B }, (_, b) =>
    Array.from({ length: T }, (_, t) => flat.slice((b * T + t) * V, (b * T + t + 1) * V)),
  );
}

function difference(a: readonly number[][], b: readonly number[][]): number {
  return relativeError(a.flat(), b.flat());
}

/** Every gradient by name, as the bytes of its values. */
async function gradientsOf(
  model: ModuleFormerForCausalLM | DenseForCausalLM,
  inputs: CausalLMInputs,
): Promise<Map<string, Float64Array>> {
  model.zeroGrad();
  model.forward(inputs).loss?.backward();
  const found = new Map<string, Float64Array>();
  for (const [name, { grad }] of model.namedParameters()) if (grad) found.set(name, await numbers(grad));
  return found;
}

// What must not change the result.

for (const fields of [{}, { sample_topk: 1, embd_pdrop: 0.1, resid_pdrop: 0.2, moe_pdrop: 0.1 }]) {
  test(`recomputed activations give the same bits: ${JSON.stringify(fields)}`, async (t) => {
    using model = await makeModel(fields, 'f32');
    model.train();
    const gradients = [];
    for (const checkpointing of [false, true]) {
      model.gradientCheckpointing = checkpointing;
      model.forwardCount = 0;
      gradients.push(await gradientsOf(model, labelled));
    }
    t.true((gradients[0]?.size ?? 0) > 0);
    t.deepEqual(gradients[1], gradients[0]);
  });
}

test('training passes draw new random numbers, evaluation draws none', async (t) => {
  using model = await makeModel({ resid_pdrop: 0.5 });
  const evaluated = await logitsOf(model, { inputIds });
  t.deepEqual(await logitsOf(model, { inputIds }), evaluated);
  model.train();
  const first = await logitsOf(model, { inputIds });
  t.notDeepEqual(await logitsOf(model, { inputIds }), first);
  model.forwardCount = 0;
  t.deepEqual(await logitsOf(model, { inputIds }), first);
});

test('without logits, loss and gradients are the same', async (t) => {
  using model = await makeModel();
  const [whole, fused] = await Promise.all(
    [true, false].map(async (outputLogits) => {
      const out = noGrad(() => model.forward({ ...labelled, outputLogits }));
      t.is(out.logits === null, !outputLogits);
      return (out.loss as Tensor).item();
    }),
  );
  t.true(relativeError([fused as number], [whole as number]) < 1e-14);
  const expected = await gradientsOf(model, labelled);
  const actual = await gradientsOf(model, { ...labelled, outputLogits: false });
  for (const [name, gradient] of expected)
    t.true(relativeError(actual.get(name) ?? [], gradient) < 1e-12, name);
});

test('the last logits alone are those of the last position', async (t) => {
  using model = await makeModel();
  const whole = await logitsOf(model, { inputIds });
  const last = await logitsOf(model, { inputIds, lastLogitsOnly: true });
  last.forEach((row, b) => t.true(difference(row, [whole[b]?.at(-1) ?? []]) < 1e-13));
});

async function paddingChangesNothing(
  t: ExecutionContext,
  model: ModuleFormerForCausalLM | DenseForCausalLM,
): Promise<void> {
  const [short, long] = [rows(1, 4, 21)[0] as number[], rows(1, 7, 22)[0] as number[]];
  const padded = await logitsOf(model, {
    inputIds: [[5, 6, 7, ...short], long],
    attentionMask: [[0, 0, 0, 1, 1, 1, 1], Array<number>(7).fill(1)],
  });
  const alone = [await logitsOf(model, { inputIds: [short] }), await logitsOf(model, { inputIds: [long] })];
  t.true(difference(padded[0]?.slice(3) ?? [], alone[0]?.[0] ?? []) < 1e-12);
  t.true(difference(padded[1] ?? [], alone[1]?.[0] ?? []) < 1e-12);
}

async function packingChangesNothing(
  t: ExecutionContext,
  model: ModuleFormerForCausalLM | DenseForCausalLM,
): Promise<void> {
  const documents = [rows(1, 5, 31)[0], rows(1, 1, 32)[0], rows(1, 6, 33)[0]] as number[][];
  const starts = documents.flatMap((document, i) => {
    const start = documents.slice(0, i).reduce((sum, { length }) => sum + length, 0);
    return document.map(() => start);
  });
  const [packed] = await logitsOf(model, { inputIds: [documents.flat()], documentStarts: [starts] });
  const alone = [];
  for (const document of documents)
    alone.push(...((await logitsOf(model, { inputIds: [document] }))[0] ?? []));
  t.true(difference(packed ?? [], alone) < 1e-12);
}

async function cacheEqualsWhole(
  t: ExecutionContext,
  model: ModuleFormerForCausalLM | DenseForCausalLM,
): Promise<void> {
  const ids = rows(2, 9, 41);
  const mask = [Array<number>(9).fill(1), [0, 0, 1, 1, 1, 1, 1, 1, 1]];
  const whole = await logitsOf(model, { inputIds: ids, attentionMask: mask });
  const cache = new KeyValueCache(9);
  const pieces: number[][][] = [[], []];
  for (const [from, to] of [
    [0, 4],
    [4, 5],
    [5, 8],
    [8, 9],
  ] as const) {
    const part = await logitsOf(model, {
      inputIds: ids.map((row) => row.slice(from, to)),
      attentionMask: mask.map((row) => row.slice(0, to)),
      cache,
    });
    part.forEach((logits, b) => pieces[b]?.push(...logits));
  }
  t.is(cache.length, 9);
  t.true(difference(pieces[0] ?? [], whole[0] ?? []) < 1e-12);
  t.true(difference(pieces[1]?.slice(2) ?? [], whole[1]?.slice(2) ?? []) < 1e-12);
  t.throws(() => noGrad(() => model.forward({ inputIds: [[1], [1]], cache })), {
    instanceOf: ShapeError,
    message: /capacity is 9/,
  });
  cache.dispose();
}

for (const [name, fields] of Object.entries<ModuleFormerConfigInit>({
  'mlp gate': {},
  'gmm gate, both switches': { gate_type: 'gmm', attend_current: false, attend_remainder: true },
  'identity keys, linear gate': { gate_type: 'linear', n_head: 1, att_hidden: 8 },
})) {
  test(`padding, packing and the cache change nothing: ${name}`, async (t) => {
    using model = await makeModel(fields);
    await paddingChangesNothing(t, model);
    await packingChangesNothing(t, model);
    await cacheEqualsWhole(t, model);
  });
}

test('padding that the routers leave out does not count in their losses', async (t) => {
  using model = await makeModel();
  const row = rows(1, 5, 51)[0] as number[];
  const padded = { inputIds: [[1, 2, ...row]], attentionMask: [[0, 0, 1, 1, 1, 1, 1]] };
  const losses = async (inputs: CausalLMInputs): Promise<number[]> => {
    const out = noGrad(() => model.forward(inputs));
    return Promise.all(
      [out.auxLoss, out.zLoss, out.concentrationLoss].map((loss) => (loss as Tensor).item()),
    );
  };
  const alone = await losses({ inputIds: [row] });
  t.true(relativeError(await losses({ ...padded, ignorePadding: true }), alone) < 1e-12);
  t.true(relativeError(await losses(padded), alone) > 1e-3);
});

test('an imposed routing is followed, and its gates come from this model', async (t) => {
  using model = await makeModel();
  using other = await makeModel({}, 'f64');
  await shake(other, 0.5, 9);
  const recorded = noGrad(() => other.forward({ inputIds }).routing);
  const out = noGrad(() => model.forward({ inputIds, routing: recorded ?? [] }));
  for (const [layer, block] of (out.routing ?? []).entries()) {
    t.deepEqual(await block.mlp.experts.data(), await recorded?.[layer]?.mlp.experts.data());
    t.notDeepEqual(await block.mlp.gates.data(), await recorded?.[layer]?.mlp.gates.data());
  }
  t.is(out.routing?.length, 2);
});

test('the same seed gives the same model, another seed another', async (t) => {
  const config = new ModuleFormerConfig(tiny);
  const weights = async (seed: number): Promise<Float64Array[]> => {
    using model = new ModuleFormerForCausalLM(config, { seed });
    return Promise.all([...model.parameters()].map(numbers));
  };
  t.deepEqual(await weights(4), await weights(4));
  t.notDeepEqual(await weights(4), await weights(5));
});

test('a float64 tensor of ids, a negative id and one beyond the vocabulary are refused', async (t) => {
  using model = await makeModel();
  const refuse = (ids: CausalLMInputs['inputIds'], expectation: object) =>
    t.throws(() => noGrad(() => model.forward({ inputIds: ids })), expectation);
  refuse([[1, 13]], { instanceOf: ValueError, message: /id 13 .*row 0, position 1.*vocabulary of 13/ });
  refuse([[1, -1]], { instanceOf: ValueError, message: /id -1/ });
  refuse([[1, 1.5]], { instanceOf: ValueError, message: /id 1\.5/ });
  refuse([[1, NaN]], { instanceOf: ValueError, message: /id NaN/ });
  refuse([], { instanceOf: ShapeError, message: /empty batch/ });
  refuse([[]], { instanceOf: ShapeError, message: /empty batch/ });
  refuse([[1, 2], [3]], { instanceOf: ShapeError, message: /row 1 has 1 entries, row 0 has 2/ });
  refuse(tensor([[1, 2]], { dtype: 'f32' }), { instanceOf: DTypeError, message: /f32, expected i32 or i64/ });
  refuse(tensor([1, 2], { dtype: 'i32' }), { instanceOf: ShapeError, message: /\[2\], expected \[B, T\]/ });
  // Ids in a tensor are only seen by the kernel: whoever waits for the result learns of it.
  for (const dtype of ['i32', 'i64'] as const) {
    const { logits } = noGrad(() => model.forward({ inputIds: tensor([[1, 99]], { dtype }) }));
    await t.throwsAsync((logits as Tensor).data(), { instanceOf: KernelError, message: /embedding.*99/s });
  }
  await t.notThrowsAsync(logitsOf(model, { inputIds: tensor([[1, 12]], { dtype: 'i64' }) }));
});

test('labels, masks and recorded experts that do not fit are refused', async (t) => {
  using model = await makeModel();
  const refuse = (inputs: Partial<CausalLMInputs>, expectation: object) =>
    t.throws(() => noGrad(() => model.forward({ inputIds: [[1, 2, 3]], ...inputs })), expectation);
  refuse(
    { labels: [[1, 2]] },
    { instanceOf: ShapeError, message: /labels: shape \[1, 2\], expected \[1, 3\]/ },
  );
  refuse({ labels: [[1, 2, 3], [1]] }, { instanceOf: ShapeError, message: /labels/ });
  refuse({ labels: [[1, 2, 0.5]] }, { instanceOf: ValueError, message: /labels: 0\.5 at row 0, position 2/ });
  refuse({ labels: tensor([[1, 2, 3]]) }, { instanceOf: DTypeError, message: /labels/ });
  refuse({ attentionMask: [[1, 1]] }, { instanceOf: ShapeError, message: /attentionMask/ });
  refuse({ documentStarts: [[0]] }, { instanceOf: ShapeError, message: /documentStarts/ });
  const recorded = noGrad(() => model.forward({ inputIds: [[1, 2]] }).routing);
  refuse({ routing: recorded ?? [] }, { instanceOf: ShapeError });
  const outside = noGrad(() => model.forward({ inputIds: [[1, 2, 3]], labels: [[1, 2, 13]] }).loss as Tensor);
  await t.throwsAsync(outside.item(), { instanceOf: KernelError, message: /13/ });
});

test('labels that are all ignored give a loss of the routers alone, and gradients', async (t) => {
  using model = await makeModel({ aux_loss_weight: 0 });
  const inputs = { inputIds, labels: inputIds.map((row) => row.map(() => -100)) };
  for (const outputLogits of [true, false]) {
    t.is(await noGrad(() => model.forward({ ...inputs, outputLogits }).crossEntropy as Tensor).item(), 0);
    for (const [name, gradient] of await gradientsOf(model, { ...inputs, outputLogits })) {
      t.true(
        gradient.every((g) => g === 0),
        name,
      );
    }
  }
});

test('the labels of a classifier are checked', (t) => {
  const make = (fields: ModuleFormerConfigInit) =>
    new ModuleFormerForSequenceClassification(new ModuleFormerConfig({ ...tiny, num_labels: 3, ...fields }));
  using model = make({});
  const refuse = (labels: Parameters<typeof model.forward>[0]['labels'], expectation: object) =>
    t.throws(
      () => noGrad(() => model.forward({ inputIds: [[1, 2]], ...(labels ? { labels } : {}) })),
      expectation,
    );
  refuse([0, 1], { instanceOf: ShapeError, message: /2 rows, expected 1/ });
  refuse([3], { instanceOf: ValueError, message: /expected one class from 0 to 2/ });
  refuse([-1], { instanceOf: ValueError });
  refuse([[1, 0]], { instanceOf: ShapeError, message: /expected 3 finite numbers/ });
  refuse([[1, 0, NaN]], { instanceOf: ShapeError, message: /NaN/ });
});

test('the loss of a classifier is that of its problem type', async (t) => {
  const mean = (values: number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;
  const targets = [
    [1, 0, 1],
    [0, 0, 1],
  ];
  const cases: Record<string, { labels: number[] | number[][]; expected: (logits: number[][]) => number }> = {
    regression: {
      labels: targets,
      expected: (logits) => mean(logits.flatMap((row, b) => row.map((x, l) => (x - targets[b]![l]!) ** 2))),
    },
    single_label_classification: {
      labels: [2, 0],
      expected: (logits) =>
        mean(
          logits.map((row, b) => Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[[2, 0][b]!]!),
        ),
    },
    multi_label_classification: {
      labels: targets,
      expected: (logits) =>
        mean(
          logits.flatMap((row, b) =>
            row.map(
              (x, l) => -Math.log(targets[b]![l] === 1 ? 1 / (1 + Math.exp(-x)) : 1 / (1 + Math.exp(x))),
            ),
          ),
        ),
    },
  };
  for (const [type, { labels, expected }] of Object.entries(cases)) {
    const fields = { ...tiny, num_labels: 3, problem_type: type as 'regression' };
    using model = new ModuleFormerForSequenceClassification(new ModuleFormerConfig(fields), { dtype: 'f64' });
    await shake(model);
    const { logits, loss } = noGrad(() => model.forward({ inputIds, labels }));
    const flat = Array.from(await numbers(logits));
    const rowsOfLogits = [flat.slice(0, 3), flat.slice(3)];
    t.true(relativeError([await (loss as Tensor).item()], [expected(rowsOfLogits)]) < 1e-12, type);
  }
});

test('a disposed tensor of ids is recognised', async (t) => {
  using model = await makeModel();
  const ids = tensor([[1, 2]], { dtype: 'i32' });
  ids.dispose();
  t.throws(() => model.forward({ inputIds: ids }), { instanceOf: HandleError, message: /disposed/ });
});

test('a disposed model is recognised', async (t) => {
  const model = await makeModel();
  model.dispose();
  t.throws(() => model.forward({ inputIds }), { instanceOf: HandleError, message: /disposed/ });
});

test('more experts chosen than there are is no config', (t) => {
  t.throws(() => new ModuleFormerConfig({ ...tiny, k_att: 5 }), {
    instanceOf: ConfigError,
    message: /k_att \(5\).*n_att_experts \(4\)/,
  });
});

for (const [name, fields] of Object.entries(denseKinds)) {
  test(`a dense model, ${name}: pieces through the cache give what the whole gives`, async (t) => {
    using model = await makeDense(fields);
    await cacheEqualsWhole(t, model);
  });

  test(`a dense model, ${name}: padding and packing change nothing`, async (t) => {
    using model = await makeDense(fields);
    await paddingChangesNothing(t, model);
    await packingChangesNothing(t, model);
  });
}

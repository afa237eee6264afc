import { readFile, writeFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import { fill, noGrad } from '../lib/autograd/index.js';
import { CheckpointError, KernelError } from '../lib/errors.js';
import { SafetensorsFile, writeSafetensors, type TensorToWrite } from '../lib/io/safetensors.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { DenseConfig } from '../lib/model/dense-config.js';
import { DenseForCausalLM } from '../lib/model/dense.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { ModuleFormerForSequenceClassification } from '../lib/model/sequence-classification.js';
import { native } from '../lib/native/load.js';
import type { Tensor } from '../lib/tensor.js';
import { numbers, roundTo } from './support/compare.js';
import { temporaryDirectory } from './support/files.js';
import { goldenDir } from './support/golden.js';

const config = new ModuleFormerConfig({
  vocab_size: 17,
  n_embd: 8,
  n_layer: 2,
  n_head: 2,
  att_hidden: 8,
  ffd_hidden: 8,
  gating_size: 4,
  n_att_experts: 3,
  n_mlp_experts: 4,
  bos_token_id: 0,
  eos_token_id: 0,
});

interface Stored extends Omit<TensorToWrite, 'chunks' | 'byteLength'> {
  bytes: Uint8Array;
}

async function readAll(path: string): Promise<Map<string, Stored>> {
  await using file = await SafetensorsFile.open(path);
  const all = new Map<string, Stored>();
  for (const [name, { dtype, shape }] of file.entries) {
    all.set(name, { name, dtype, shape, bytes: await file.read(name) });
  }
  return all;
}

function write(path: string, tensors: Iterable<Stored>): Promise<void> {
  const whole = [...tensors].map(({ bytes, ...rest }) => ({
    ...rest,
    byteLength: bytes.byteLength,
    chunks: () => [bytes],
  }));
  return writeSafetensors(path, whole);
}

/** A saved model whose weights were changed by `edit`. */
async function edited(dir: string, edit: (tensors: Map<string, Stored>) => void): Promise<void> {
  using model = new ModuleFormerForCausalLM(config, { seed: 1 });
  await model.savePretrained(dir);
  const tensors = await readAll(join(dir, 'model.safetensors'));
  edit(tensors);
  await write(join(dir, 'model.safetensors'), tensors.values());
}

for (const dtype of ['f32', 'bf16', 'f64'] as const) {
  test(`saved, loaded and saved again, a checkpoint in ${dtype} has the same bytes`, async (t) => {
    const [first, second] = [await temporaryDirectory(t), await temporaryDirectory(t)];
    using model = new ModuleFormerForCausalLM(config, { dtype, seed: 3 });
    await model.savePretrained(first);
    using loaded = await ModuleFormerForCausalLM.fromPretrained(first);
    t.is(loaded.dtype, dtype);
    t.false(loaded.training);
    await loaded.savePretrained(second);
    t.deepEqual((await readdir(first)).sort(), ['config.json', 'model.safetensors']);
    for (const name of await readdir(first)) {
      t.true((await readFile(join(second, name))).equals(await readFile(join(first, name))), name);
    }
    const logits = [model, loaded].map((m) =>
      noGrad(() => m.forward({ inputIds: [[1, 2, 3]] }).logits as Tensor),
    );
    t.deepEqual(await logits[1]?.data(), await logits[0]?.data());
  });
}

test('the golden checkpoints are written back byte for byte', async (t) => {
  for (const name of ['mlp-gate', 'gmm-gate-k4', 'linear-gate-switch']) {
    const dir = await temporaryDirectory(t);
    using model = await ModuleFormerForCausalLM.fromPretrained(goldenDir(name));
    await model.savePretrained(dir);
    const before = await readAll(join(goldenDir(name), 'model.safetensors'));
    const after = await readAll(join(dir, 'model.safetensors'));
    t.deepEqual([...after.keys()].sort(), [...before.keys()].sort());
    for (const [key, stored] of before) t.true(isDeepStrictEqual(after.get(key), stored), key);
  }
});

test('a checkpoint in shards is the same model', async (t) => {
  const dir = await temporaryDirectory(t);
  using model = new ModuleFormerForCausalLM(config, { seed: 3 });
  await model.savePretrained(dir, { maxShardBytes: 3000 });
  t.true((await readdir(dir)).length > 4);
  using loaded = await ModuleFormerForCausalLM.fromPretrained(dir);
  for (const [name, parameter] of model.namedParameters()) {
    const same = [...loaded.namedParameters()].find(([other]) => other === name)?.[1] as Tensor;
    t.deepEqual(await same.bytes(), await parameter.bytes(), name);
  }
});

test('loading converts between dtypes', async (t) => {
  const dir = await temporaryDirectory(t);
  using model = new ModuleFormerForCausalLM(config, { seed: 3 });
  await model.savePretrained(dir);
  for (const dtype of ['bf16', 'f64'] as const) {
    using loaded = await ModuleFormerForCausalLM.fromPretrained(dir, { dtype });
    const parameters = [...loaded.parameters()];
    for (const [i, parameter] of [...model.parameters()].entries()) {
      t.deepEqual(await numbers(parameters[i] as Tensor), roundTo(await numbers(parameter), dtype));
    }
  }
});

test('missing, unexpected and misshapen tensors are named, and nothing is loaded', async (t) => {
  const dir = await temporaryDirectory(t);
  await edited(dir, (tensors) => {
    const first = tensors.get('transformer.wte.weight') as Stored;
    tensors.delete('lm_head.weight');
    tensors.set('transformer.h.7.oops', { ...first, name: 'transformer.h.7.oops' });
    const bias = tensors.get('transformer.ln_f.bias') as Stored;
    tensors.set('transformer.ln_f.bias', { ...bias, shape: [2, 4] });
    const norm = tensors.get('transformer.ln_f.weight') as Stored;
    tensors.set('transformer.ln_f.weight', { ...norm, dtype: 'I32' });
  });
  const error = await t.throwsAsync(ModuleFormerForCausalLM.fromPretrained(dir), {
    instanceOf: CheckpointError,
  });
  t.regex(error?.message ?? '', /nothing was loaded/);
  t.regex(error?.message ?? '', /missing lm_head\.weight/);
  t.regex(error?.message ?? '', /unexpected transformer\.h\.7\.oops/);
  t.regex(error?.message ?? '', /transformer\.ln_f\.bias has shape \[2, 4\], expected \[8\]/);
  t.regex(error?.message ?? '', /transformer\.ln_f\.weight has dtype I32/);

  using model = new ModuleFormerForCausalLM(config, { seed: 9 });
  const before = await Promise.all([...model.parameters()].map(numbers));
  await t.throwsAsync(model.loadWeights(dir), { instanceOf: CheckpointError });
  t.deepEqual(await Promise.all([...model.parameters()].map(numbers)), before);
});

for (const prefix of ['transformer.', '']) {
  test(`the buffers of MoLM files are dropped: ${prefix || 'no prefix'}`, async (t) => {
    const [dir, saved] = [await temporaryDirectory(t), await temporaryDirectory(t)];
    await edited(dir, (tensors) => {
      for (const layer of [0, 1]) {
        for (const buffer of ['mask', 'cum_weight']) {
          const name = `${prefix}h.${layer}.attn.${buffer}`;
          tensors.set(name, { name, dtype: 'F32', shape: [4, 4], bytes: new Uint8Array(64) });
        }
      }
    });
    using model = await ModuleFormerForCausalLM.fromPretrained(dir);
    await model.savePretrained(saved);
    const names = [...(await readAll(join(saved, 'model.safetensors'))).keys()];
    t.false(names.some((name) => /mask|cum_weight/.test(name)));
    t.deepEqual(names.sort(), [...model.namedParameters()].map(([name]) => name).sort());
  });
}

test('a buffer of a like name elsewhere is not passed over', async (t) => {
  const dir = await temporaryDirectory(t);
  const name = 'transformer.h.0.mlpf.mask';
  await edited(dir, (tensors) =>
    tensors.set(name, { name, dtype: 'F32', shape: [1], bytes: new Uint8Array(4) }),
  );
  await t.throwsAsync(ModuleFormerForCausalLM.fromPretrained(dir), {
    message: /unexpected transformer\.h\.0\.mlpf\.mask/,
  });
});

test('a file that was cut off is no checkpoint', async (t) => {
  const dir = await temporaryDirectory(t);
  await edited(dir, () => undefined);
  const path = join(dir, 'model.safetensors');
  const bytes = await readFile(path);
  await writeFile(path, bytes.subarray(0, bytes.length - 10));
  await t.throwsAsync(ModuleFormerForCausalLM.fromPretrained(dir), { instanceOf: CheckpointError });
});

test('a language model becomes a classifier with a new head', async (t) => {
  const dir = await temporaryDirectory(t);
  await edited(dir, () => undefined);
  const newHead = { numLabels: 4, problemType: 'multi_label_classification' } as const;
  await t.throwsAsync(ModuleFormerForSequenceClassification.fromPretrained(dir), {
    message: /missing score\.weight/,
  });
  using model = await ModuleFormerForSequenceClassification.fromPretrained(dir, { newHead, seed: 6 });
  const { logits } = noGrad(() => model.forward({ inputIds: [[1, 2, 3]] }));
  t.deepEqual(logits.shape, [1, 4]);
  const saved = await temporaryDirectory(t);
  await model.savePretrained(saved);
  using again = await ModuleFormerForSequenceClassification.fromPretrained(saved);
  t.is(again.config.num_labels, 4);
  t.is(again.config.problem_type, 'multi_label_classification');
  t.deepEqual(
    await noGrad(() => again.forward({ inputIds: [[1, 2, 3]] }).logits).data(),
    await logits.data(),
  );
});

test('a dense model is saved and loaded', async (t) => {
  const [first, second] = [await temporaryDirectory(t), await temporaryDirectory(t)];
  const dense = new DenseConfig({ vocab_size: 17, n_embd: 8, n_layer: 2, n_head: 1 });
  using model = new DenseForCausalLM(dense, { dtype: 'bf16', seed: 3 });
  await model.savePretrained(first);
  using loaded = await DenseForCausalLM.fromPretrained(first);
  await loaded.savePretrained(second);
  for (const name of ['config.json', 'model.safetensors']) {
    t.true((await readFile(join(second, name))).equals(await readFile(join(first, name))), name);
  }
});

test('saving replaces the weights that were there', async (t) => {
  const dir = await temporaryDirectory(t);
  using model = new ModuleFormerForCausalLM(config, { seed: 3 });
  await model.savePretrained(dir, { maxShardBytes: 3000 });
  await model.savePretrained(dir);
  t.deepEqual((await readdir(dir)).sort(), ['config.json', 'model.safetensors']);
  // Where both were left, the single file would be read.
  using other = new ModuleFormerForCausalLM(config, { seed: 4 });
  await other.savePretrained(dir, { maxShardBytes: 3000 });
  t.false((await readdir(dir)).includes('model.safetensors'));
  using loaded = await ModuleFormerForCausalLM.fromPretrained(dir);
  const bytes = async (m: ModuleFormerForCausalLM) => (await [...m.parameters()][0]?.bytes())?.toString();
  t.is(await bytes(loaded), await bytes(other));
});

test('loading makes parameters usable again that a failed step has spoiled, in the same dtype or another', async (t) => {
  const dir = await temporaryDirectory(t);
  // An embedding that is read in more than one piece.
  const wide = new ModuleFormerConfig({ ...config.toJSON(), vocab_size: 600_000, n_layer: 1 });
  using saved = new ModuleFormerForCausalLM(wide, { dtype: 'bf16', seed: 1 });
  await saved.savePretrained(dir);
  for (const dtype of ['bf16', 'f32'] as const) {
    using model = new ModuleFormerForCausalLM(wide, { dtype, seed: 2 });
    const [parameter] = model.parameters();
    native.failNext('fill');
    fill(parameter as Tensor, 0);
    await t.throwsAsync((parameter as Tensor).data(), { instanceOf: KernelError });
    await model.loadWeights(dir);
    const { logits } = noGrad(() => model.forward({ inputIds: [[1, 599_999]] }));
    await t.notThrowsAsync((logits as Tensor).data());
  }
});

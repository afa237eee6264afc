import test from 'ava';
import { noGrad, quantizedLinear, quantizeWeight } from '../lib/autograd/index.js';
import { AutogradError, ShapeError, ValueError } from '../lib/errors.js';
import { quantize } from '../lib/model/quantize.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { native } from '../lib/native/load.js';
import { tensor } from '../lib/tensor.js';
import * as reference from './reference/quantize.js';
import { normals } from './support/random.js';

const inputIds = [[5, 3, 8, 1, 9, 12, 700, 4]];
const tiny = (): ModuleFormerForCausalLM => new ModuleFormerForCausalLM(presetConfig('tiny'));

test('values are the nearest integers, on either layout', async (t) => {
  const [E, width, out] = [2, 64, 6];
  const data = normals(3, E * width * out).map(Math.fround);
  const rows = reference.inputsInnermost(data, E, width, out);
  const expected = reference.quantize(rows, E * out, width, 32).values;
  const experts = tensor(Float32Array.from(data), { shape: [E, width, out] });
  const lines = tensor(Float32Array.from(rows), { shape: [E, out, width] });
  for (const [w, transposed] of [
    [experts, false],
    [lines, true],
  ] as const) {
    const values = await quantizeWeight(w, { groupSize: 32, transposed }).values.data();
    t.true(values.every((value, i) => Math.abs(Number(value) - expected[i]!) <= 1));
    t.true([...values].filter((value, i) => Number(value) !== expected[i]).length <= 2);
  }
});

test('a group with a number that is not finite gives NaN, zeros give zeros', async (t) => {
  const w = new Float32Array(64 * 3).fill(0);
  w[5] = Infinity;
  w[70] = NaN;
  const form = quantizeWeight(tensor(w, { shape: [3, 64] }), { groupSize: 64, transposed: true });
  const y = await quantizedLinear(tensor(new Float32Array(64).fill(1), { shape: [1, 64] }), form).data();
  t.deepEqual([...y], [NaN, NaN, 0]);
});

test('what does not fit is named', (t) => {
  const w = tensor(new Float32Array(64 * 3), { shape: [3, 64] });
  const options = { groupSize: 32, transposed: true };
  t.throws(() => quantizeWeight(w, { ...options, groupSize: 48 }), {
    instanceOf: ValueError,
    message: /groupSize is 48/,
  });
  t.throws(() => quantizeWeight(w, { groupSize: 32, transposed: false }), {
    instanceOf: ShapeError,
    message: /multiple of 32/,
  });
  const form = quantizeWeight(w, options);
  t.throws(() => quantizedLinear(tensor(new Float32Array(32), { shape: [1, 32] }), form), {
    instanceOf: ShapeError,
    message: /values has shape \[3, 64\], expected \[3, 32\]/,
  });
  const x = tensor(new Float32Array(64), { shape: [1, 64], requiresGrad: true });
  t.throws(() => quantizedLinear(x, form), { instanceOf: AutogradError, message: /8-bit weights/ });
  t.notThrows(() => noGrad(() => quantizedLinear(x, form)));
});

test('a quantized model says nearly the same, in the same way with a cache, and is not saved', async (t) => {
  const model = tiny();
  const { loss } = model.forward({ inputIds, labels: inputIds });
  const before = await loss!.item();
  const names = quantize(model);
  t.is(names.length, 4 * 6 + 1);
  t.true(names.includes('lm_head.weight'));
  const after = await model.forward({ inputIds, labels: inputIds }).loss!.item();
  const fused = await model.forward({ inputIds, labels: inputIds, outputLogits: false }).loss!.item();
  t.true(Math.abs(after - before) < 2e-3 * before, `${before} ${after}`);
  t.is(fused, after);
  const first = await model.generate({ inputIds, maxNewTokens: 6, temperature: 0 });
  native.setNumThreads(1);
  t.deepEqual(await model.generate({ inputIds, maxNewTokens: 6, temperature: 0 }), first);
  native.setNumThreads(2);
  await t.throwsAsync(model.savePretrained('/nowhere/at/all'), { instanceOf: Error });
  t.throws(() => model.checkpointFiles('x'), { instanceOf: ValueError, message: /quantized/ });
  t.throws(() => quantize(model), { instanceOf: ValueError, message: /quantized already/ });
  model.dispose();
});

test('nothing is changed when a weight does not fit', async (t) => {
  const config = new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), ffd_hidden: 48 });
  const model = new ModuleFormerForCausalLM(config);
  t.throws(() => quantize(model), { instanceOf: ShapeError, message: /output_experts.weight/ });
  t.true([...model.parameters()].every((parameter) => parameter.requiresGrad && !parameter.isDisposed));
  t.true(Number.isFinite(await model.forward({ inputIds, labels: inputIds }).loss!.item()));
});

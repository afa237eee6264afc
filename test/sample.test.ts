import test from 'ava';
import { sampleToken } from '../lib/autograd/sample.js';
import { DTypeError, KernelError, ShapeError, ValueError } from '../lib/errors.js';
import { tensor } from '../lib/tensor.js';
import { distribution } from './reference/sample.js';
import { numbers } from './support/compare.js';
import { normals } from './support/random.js';

const key = [5, 6] as const;

test('draws follow the distribution that the processors leave', async (t) => {
  const N = 20000;
  const logits = [...normals(3, 8, 1.5)].map(Math.fround);
  const rows = tensor(Array.from({ length: N }, () => logits).flat(), { shape: [N, 8] });
  const options = { temperature: 0.8, topK: 6, topP: 0.95 };
  const tokens = await numbers(sampleToken(rows, { ...options, key }));
  const kept = distribution(logits, options);
  t.true(kept.length > 2 && kept.length < 8);
  const total = kept.reduce((sum, [, weight]) => sum + weight, 0);
  let chiSquare = 0;
  for (const [id, weight] of kept) {
    const expected = (N * weight) / total;
    chiSquare += (tokens.filter((token) => token === id).length - expected) ** 2 / expected;
  }
  t.is(tokens.filter((token) => !kept.some(([id]) => id === token)).length, 0);
  // The 0.999 quantile of chi-square with 5 degrees of freedom.
  t.true(chiSquare < 20.5, `chi-square ${chiSquare}`);
});

test('infinite logits: the impossible is never drawn, the certain always', async (t) => {
  const rows = tensor(
    [
      [-Infinity, 0, -Infinity],
      [1, 2, Infinity],
      [-Infinity, -Infinity, -5],
    ],
    {},
  );
  for (const options of [{}, { topK: 2 }, { topP: 0.9 }, { temperature: 0 }])
    t.deepEqual([...(await numbers(sampleToken(rows, { ...options, key })))], [1, 2, 2]);
});

test('rows without a possible token are errors', async (t) => {
  const sample = (row: number[], temperature: number): Promise<Float64Array> =>
    numbers(sampleToken(tensor([[0, 1, 2], row]), { temperature, key }));
  for (const temperature of [0, 1]) {
    await t.throwsAsync(sample([0, NaN, 1], temperature), {
      instanceOf: KernelError,
      message: /row 1 hold NaN/,
    });
    await t.throwsAsync(sample([-Infinity, -Infinity, -Infinity], temperature), {
      instanceOf: KernelError,
      message: /row 1 are all -infinity/,
    });
  }
});

test('misuse is named', async (t) => {
  const logits = tensor([[0, 1, 2]]);
  t.throws(() => sampleToken(logits, {}), { instanceOf: ValueError, message: /key/ });
  t.throws(() => sampleToken(logits, { temperature: -1, key }), {
    instanceOf: ValueError,
    message: /temperature is -1/,
  });
  t.throws(() => sampleToken(logits, { temperature: NaN, key }), {
    instanceOf: ValueError,
    message: /temperature/,
  });
  t.throws(() => sampleToken(logits, { topK: -1, key }), { instanceOf: ValueError, message: /topK is -1/ });
  for (const topP of [0, 1.5, NaN])
    t.throws(() => sampleToken(logits, { topP, key }), { instanceOf: ValueError, message: /topP/ });
  t.throws(() => sampleToken(logits, { repetitionPenalty: 0, key }), {
    instanceOf: ValueError,
    message: /Penalty is 0/,
  });
  t.throws(() => sampleToken(tensor([1, 2]), { temperature: 0 }), {
    instanceOf: ShapeError,
    message: /2 dimensions/,
  });
  t.throws(() => sampleToken(tensor([[1]], { dtype: 'bf16' }), { temperature: 0 }), {
    instanceOf: DTypeError,
  });
  const history = tensor([[3]], { dtype: 'i32' });
  const bad = sampleToken(logits, { temperature: 0, repetitionPenalty: 2, history });
  await t.throwsAsync(bad.data(), {
    instanceOf: KernelError,
    message: /history holds 3, expected -1 \(padding\) or 0 to 2/,
  });
});

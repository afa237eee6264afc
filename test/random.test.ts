import test from 'ava';
import { dropout, randomNormal, randomUniform } from '../lib/autograd/random.js';
import { DTypeError, ValueError } from '../lib/errors.js';
import type { RandomKey } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { tensor } from '../lib/tensor.js';
import * as reference from './reference/random.js';
import { numbers } from './support/compare.js';

const seed = 2 ** 52 + 12345;
const stream = 2 ** 33 + 5;
const key: RandomKey = [seed, stream];
/** Around the ends of blocks, groups of blocks and tasks. */
const indices = [0, 1, 2, 3, 4, 63, 64, 65, 16383, 16384, 16385, 32770, 40000];
const length = 40001;

test('the first words are the published ones', async (t) => {
  const x = await numbers(randomUniform([4], [0, 0]));
  t.deepEqual(
    [...x],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8].map((w) => (w >>> 8) * 2 ** -24),
  );
});

test('uniform numbers are those of the oracle, in every dtype up to rounding', async (t) => {
  const low = -1.5;
  const high = 2;
  for (const [dtype, tolerance] of [
    ['f64', 1e-15],
    ['f32', 2e-7],
    ['bf16', 8e-3],
  ] as const) {
    const x = await numbers(randomUniform([length], key, { low, high, dtype }));
    for (const i of indices) {
      const expected = low + (high - low) * reference.uniform({ seed, stream }, i, 'f64');
      t.true(Math.abs((x[i] as number) - expected) <= tolerance + 3.5 * 2 ** -24 * Number(dtype !== 'f64'));
    }
    t.true(x.every((v) => v >= low && v < high));
  }
});

test('no uniform number reaches the upper end, in bf16 either', async (t) => {
  for (const [low, high] of [
    [0, 1],
    [-1, 0],
    [-0.001, 0.001],
    [100, 101],
  ] as const) {
    const x = await numbers(randomUniform([20000], key, { low, high, dtype: 'bf16' }));
    t.true(
      x.every((v) => v >= low && v < high),
      `[${low}, ${high})`,
    );
  }
});

test('normal numbers are those of the oracle', async (t) => {
  for (const [dtype, tolerance] of [
    ['f64', 1e-13],
    ['f32', 1e-6],
    ['bf16', 4e-2],
  ] as const) {
    const x = await numbers(randomNormal([length], key, { mean: 3, standardDeviation: 0.5, dtype }));
    for (const i of indices) {
      const expected = 3 + 0.5 * reference.normal({ seed, stream }, i);
      t.true(Math.abs((x[i] as number) - expected) <= tolerance, `${dtype} ${i}`);
    }
  }
});

test('moments are those of the distributions', async (t) => {
  const n = 400_000;
  const moments = (x: Float64Array): number[] =>
    [1, 2, 3, 4].map((k) => x.reduce((sum, v) => sum + v ** k, 0) / x.length);
  const normal = moments(await numbers(randomNormal([n], [1, 2])));
  // Five standard errors: sqrt(var(x^k) / n) for k = 1 to 4 are 1, sqrt 2, sqrt 15 and sqrt 96 over sqrt n.
  [0, 1, 0, 3].forEach((expected, k) => {
    const bound = (5 * Math.sqrt([1, 2, 15, 96][k] as number)) / Math.sqrt(n);
    t.true(Math.abs((normal[k] as number) - expected) < bound, `moment ${k + 1}: ${normal[k]}`);
  });
  const uniform = moments(await numbers(randomUniform([n], [1, 2])));
  [1 / 2, 1 / 3, 1 / 4, 1 / 5].forEach((expected, k) => {
    t.true(Math.abs((uniform[k] as number) - expected) < 0.0025, `moment ${k + 1}: ${uniform[k]}`);
  });
});

test.serial('the same numbers for 1, 2 and 4 threads; others for another seed or stream', async (t) => {
  const threads = native.numThreads();
  const draw = async (k: RandomKey): Promise<string> =>
    Buffer.from(await randomNormal([70001], k).bytes()).toString('base64');
  const seen = new Set<string>();
  for (const count of [1, 2, 4]) {
    native.setNumThreads(count);
    seen.add(await draw(key));
  }
  native.setNumThreads(threads);
  t.is(seen.size, 1);
  seen.add(await draw([seed + 1, stream]));
  seen.add(await draw([seed, stream + 1]));
  t.is(seen.size, 3);
});

test('dropout keeps about 1 - p, and the same key gives the same mask', async (t) => {
  const x = tensor(new Float32Array(50000).fill(1));
  const y = dropout(x, 0.3, key);
  const kept = (await numbers(y)).filter((v) => v !== 0).length / 50000;
  t.true(Math.abs(kept - 0.7) < 0.011, `kept ${kept}`);
  const again = await numbers(dropout(x, 0.3, key));
  t.deepEqual(await numbers(y), again);
});

test('misuse is named', (t) => {
  const x = tensor([1, 2, 3]);
  t.throws(() => dropout(x, 1.5, key), { instanceOf: ValueError, message: /dropout: p is 1\.5/ });
  t.throws(() => dropout(x, NaN, key), { instanceOf: ValueError, message: /dropout: p/ });
  t.throws(() => dropout(x, 0.5, [-1, 0]), { instanceOf: ValueError, message: /key/ });
  t.throws(() => dropout(x, 0.5, [0.5, 0]), { instanceOf: ValueError, message: /key/ });
  t.throws(() => dropout(tensor([1], { dtype: 'i32' }), 0.5, key), {
    instanceOf: DTypeError,
    message: /dropout: x has dtype i32/,
  });
  t.throws(() => randomUniform([3], key, { low: 1, high: 0 }), {
    instanceOf: ValueError,
    message: /low is 1/,
  });
  t.throws(() => randomUniform([3], key, { high: Infinity }), { instanceOf: ValueError, message: /finite/ });
  t.throws(() => randomNormal([3], key, { standardDeviation: -1 }), {
    instanceOf: ValueError,
    message: /standardDeviation is -1/,
  });
  t.throws(() => randomNormal([3], key, { dtype: 'i32' }), { instanceOf: DTypeError, message: /i32/ });
});

import test from 'ava';
import { attention, attentionWeights, type AttentionOptions } from '../lib/autograd/attention.js';
import { cacheAppend } from '../lib/autograd/kv_cache.js';
import { rotary } from '../lib/autograd/rotary.js';
import { AutogradError, DTypeError, HandleError, ShapeError, ValueError } from '../lib/errors.js';
import { scope } from '../lib/scope.js';
import { memoryStats, resetPeakMemory, synchronize } from '../lib/system.js';
import { tensor, type DType, type Tensor } from '../lib/tensor.js';
import { numbers, relativeError } from './support/compare.js';
import { backwardWeighted } from './support/objective.js';
import { normals } from './support/random.js';

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function random(seed: number, shape: readonly number[], dtype: DType = 'f32', requiresGrad = false): Tensor {
  return tensor(normals(seed, size(shape)), { shape, dtype, requiresGrad });
}

const ones = (shape: readonly number[]): Tensor =>
  tensor(new Int32Array(size(shape)).fill(1), { shape, dtype: 'i32' });

/** Output and gradients of one head of width C over T keys; the logits have mean `mean` and standard deviation 1. */
async function runHead(T: number, dtype: DType, mean: number, options: AttentionOptions = {}) {
  const C = 64;
  const q = normals(1, T * C);
  const k = normals(2, T * C);
  for (let t = 0; t < T; t++) {
    q[t * C] = mean * Math.sqrt(C);
    k[t * C] = 1;
  }
  const leaf = (data: Float64Array, shape: readonly number[]): Tensor =>
    // Rounded to f32 for both, so that they compute with the same numbers.
    tensor(Float64Array.from(Float32Array.from(data)), { dtype, shape, requiresGrad: true });
  const inputs = [
    leaf(q, [1, T, 1, 1, C]),
    leaf(k, [1, T, 1, C]),
    leaf(normals(3, T * C), [1, T, 1, C]),
  ] as const;
  const out = attention(...inputs, options);
  backwardWeighted([out], [Float64Array.from(Float32Array.from(normals(4, T * C)))]);
  return Promise.all([out, ...inputs.map(({ grad }) => grad as Tensor)].map(numbers));
}

for (const [mean, what] of [
  [0, 'sticks soon spent'],
  [-8, 'sticks that last'],
] as const) {
  test.serial(`gradients in f32 are as exact at 8192 keys as at 256: ${what}`, async (t) => {
    for (const T of [256, 8192]) {
      const [exact, single] = [await runHead(T, 'f64', mean), await runHead(T, 'f32', mean)];
      ['out', 'dq', 'dk', 'dv'].forEach((name, i) => {
        const error = relativeError(single[i] as Float64Array, exact[i] as Float64Array);
        t.true(error < 4e-6, `${name} at ${T}: ${error}`);
      });
    }
  });
}

test.serial('memory grows with the length, not with its square', async (t) => {
  const peak = async (T: number): Promise<number> => {
    await synchronize();
    const before = memoryStats().live;
    resetPeakMemory();
    const q = random(1, [1, T, 1, 2, 16], 'f32', true);
    const k = random(2, [1, T, 2, 16]);
    scope(() => backwardWeighted([attention(q, k, k)], [new Float64Array(T * 32).fill(1)]));
    await synchronize();
    const { peak } = memoryStats();
    for (const x of [q, k, q.grad as Tensor]) x.dispose();
    return peak - before;
  };
  const [short, long] = [await peak(2048), await peak(8192)];
  t.true(long < 6 * short, `${short} bytes at 2048, ${long} at 8192`);
});

test('decoding on a cache gives what the whole sequence gives', async (t) => {
  const [T, K, H, C] = [75, 2, 2, 24];
  for (const kind of ['stickBreaking', 'softmax'] as const) {
    const [q, k, v] = [random(1, [1, T, K, H, C]), random(2, [1, T, H, C]), random(3, [1, T, H, C])];
    const whole = await numbers(attention(q, k, v, { kind }));
    const row = (x: Float64Array, t: number, width: number): Float64Array =>
      x.subarray(t * width, (t + 1) * width);
    const [qs, ks, vs] = (await Promise.all([q, k, v].map(numbers))) as [
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    const caches = [1, 2].map(() =>
      tensor(new Float32Array(2 * T * H * C).fill(NaN), { shape: [1, 2 * T, H, C] }),
    ) as [Tensor, Tensor];
    for (let i = 0; i < T; i++) {
      [ks, vs].forEach((x, n) =>
        cacheAppend(tensor(row(x, i, H * C), { dtype: 'f32', shape: [1, 1, H, C] }), caches[n] as Tensor, i),
      );
      const step = attention(
        tensor(row(qs, i, K * H * C), { dtype: 'f32', shape: [1, 1, K, H, C] }),
        ...caches,
        {
          kind,
          keyLength: i + 1,
        },
      );
      t.true(relativeError(await numbers(step), row(whole, i, K * H * C)) < 1e-6, `${kind}, position ${i}`);
    }
  }
});

test('rows of the weights sum to at most 1, and to 1 together with the remainder', async (t) => {
  const [q, k] = [random(1, [1, 40, 2, 1, 8]), random(2, [1, 40, 1, 8])];
  const weights = await numbers(attentionWeights(q, k));
  // With values of 1 the output is the sum of the weights.
  const v = tensor(new Float32Array(40 * 8).fill(1), { shape: [1, 40, 1, 8] });
  const sums = await numbers(attention(q, k, v));
  for (let i = 0; i < 40; i++) {
    const row = weights.subarray(i * 40, (i + 1) * 40);
    const sum = row.reduce((a, b) => a + b, 0);
    t.true(sum > 0 && sum < 1 + 1e-6 && row.subarray(i + 1).every((a) => a === 0));
    t.true(Math.abs((sums[2 * i * 8] as number) - sum) < 1e-6);
  }
  const whole = await numbers(attention(q, k, v, { remainder: true }));
  t.true(whole.every((y) => Math.abs(y - 1) < 1e-6));
});

test('rows without keys give exact zeros and no gradient', async (t) => {
  for (const kind of ['stickBreaking', 'softmax'] as const) {
    const q = random(1, [2, 3, 1, 1, 4], 'f32', true);
    const k = random(2, [2, 3, 1, 4], 'f32', true);
    const keyMask = tensor([0, 0, 0, 1, 1, 1], { dtype: 'i32', shape: [2, 3] });
    const out = attention(q, k, k, { kind, keyMask });
    backwardWeighted([out], [new Float64Array(24).fill(1)]);
    for (const x of [out, q.grad as Tensor, k.grad as Tensor]) {
      const data = await numbers(x);
      t.true(
        data.subarray(0, 12).every((y) => y === 0),
        kind,
      );
      t.true(
        data.subarray(12).some((y) => y !== 0),
        kind,
      );
    }
  }
});

test('a NaN in a query stays in its own row', async (t) => {
  const data = normals(1, 5 * 4);
  data[2 * 4] = NaN;
  for (const kind of ['stickBreaking', 'softmax'] as const) {
    const q = tensor(data, { dtype: 'f32', shape: [1, 5, 1, 1, 4] });
    const k = random(2, [1, 5, 1, 4]);
    const out = await numbers(attention(q, k, k, { kind }));
    for (let i = 0; i < 5; i++) {
      t.is(out.subarray(i * 4, i * 4 + 4).some(Number.isNaN), i === 2, `${kind}, row ${i}`);
    }
  }
});

test('cacheAppend writes its rows alone, in every dtype', async (t) => {
  for (const dtype of ['f64', 'f32', 'bf16', 'i8'] as const) {
    const cache = tensor(new Float64Array(2 * 5 * 6).fill(9), { dtype, shape: [2, 5, 2, 3] });
    const x = tensor(
      Float64Array.from({ length: 24 }, (_, i) => i),
      { dtype, shape: [2, 2, 2, 3] },
    );
    cacheAppend(x, cache, 2);
    const nines = (rows: number): number[] => Array<number>(rows * 6).fill(9);
    const rising = Array.from({ length: 24 }, (_, i) => i);
    t.deepEqual(
      [...(await numbers(cache))],
      [...nines(2), ...rising.slice(0, 12), ...nines(1), ...nines(2), ...rising.slice(12), ...nines(1)],
    );
  }
});

test('a cache that changes between forward and backward is an error', (t) => {
  const cache = random(1, [1, 4, 1, 2]);
  const out = attention(random(2, [1, 4, 1, 1, 2], 'f32', true), cache, cache);
  cacheAppend(random(3, [1, 1, 1, 2]), cache, 0);
  t.throws(() => backwardWeighted([out], [new Float64Array(8)]), { instanceOf: AutogradError });
});

test('misuse is named', (t) => {
  const q = random(1, [2, 3, 1, 2, 4]);
  const k = random(2, [2, 5, 2, 4]);
  const fails = (run: () => unknown, instanceOf: new (m: string) => Error, message: RegExp): void => {
    t.throws(run, { instanceOf, message });
  };
  fails(
    () => attention(random(1, [3, 4]), k, k),
    ShapeError,
    /attention: q has shape \[3, 4\], expected 5 dim/,
  );
  fails(
    () => attention(q, random(1, [2, 5, 2, 3]), k),
    ShapeError,
    /k has shape \[2, 5, 2, 3\], expected \[2, 5, 2, 4\]/,
  );
  fails(() => attention(q, k, random(1, [2, 4, 2, 4])), ShapeError, /v has shape .*expected \[2, 5, 2, 4\]/);
  fails(
    () => attention(q, random(1, [2, 2, 2, 4]), k),
    ShapeError,
    /keyLength is 2, expected at least the 3/,
  );
  fails(
    () => attention(q, k, k, { keyLength: 6 }),
    ShapeError,
    /keyLength is 6, expected at most the 5 rows/,
  );
  fails(() => attention(q, k, k, { keyLength: 2 }), ShapeError, /keyLength is 2, expected at least the 3/);
  fails(() => attention(q, k, random(1, [2, 5, 2, 4], 'f64')), DTypeError, /v has dtype f64, expected f32/);
  fails(() => attention(ones([2, 3, 1, 2, 4]), k, k), DTypeError, /q has dtype i32/);
  fails(
    () => attention(q, k, k, { keyMask: ones([2, 3]) }),
    ShapeError,
    /keyMask has shape \[2, 3\], expected \[2, 5\]/,
  );
  fails(
    () => attention(q, k, k, { keyMask: random(1, [2, 5]) }),
    DTypeError,
    /keyMask has dtype f32, expected i32/,
  );
  fails(
    () => attention(q, k, k, { documentStart: ones([2, 5]) }),
    ShapeError,
    /documentStart .*expected \[2, 3\]/,
  );
  fails(
    () => attention(q, k, k, { kind: 'softmax', remainder: true }),
    ValueError,
    /belong to stick-breaking/,
  );
  fails(() => attention(q, k, k, { kind: 'sigmoid' as 'softmax' }), ValueError, /kind is -1/);
  fails(() => attentionWeights(q, random(1, [2, 5, 1, 4])), ShapeError, /attentionWeights: k has shape/);
  fails(() => attention(random(1, [1, 1, 1, 1, 0]), random(1, [1, 1, 1, 0]), k), ShapeError, /head width/);
  const gone = random(1, [2, 5, 2, 4]);
  gone.dispose();
  fails(() => attention(q, k, gone), HandleError, /attention: v/);

  const x = random(1, [1, 2, 3, 4]);
  fails(() => rotary(x, ones([2, 1])), ShapeError, /positions has shape \[2, 1\], expected \[1, 2\]/);
  fails(
    () => rotary(x, ones([1, 2]), { rotaryDim: 3 }),
    ValueError,
    /rotaryDim is 3, expected an even number/,
  );
  fails(() => rotary(x, ones([1, 2]), { rotaryDim: 6 }), ValueError, /rotaryDim is 6/);
  fails(() => rotary(x, ones([1, 2]), { base: 0 }), ValueError, /base is 0/);

  const cache = random(2, [1, 5, 3, 4]);
  fails(
    () => cacheAppend(x, cache, 4),
    ValueError,
    /start is 4, expected .*room for 2 of the cache's 5 rows/,
  );
  fails(() => cacheAppend(x, cache, -1), ValueError, /start is -1/);
  fails(
    () => cacheAppend(random(1, [1, 2, 4, 3]), cache, 0),
    ShapeError,
    /cache has shape .*expected \[1, 5, 4, 3\]/,
  );
  fails(
    () => cacheAppend(random(1, [1, 2, 3, 4], 'bf16'), cache, 0),
    DTypeError,
    /cache has dtype f32, expected bf16/,
  );
  fails(() => cacheAppend(cache, cache, 0), ValueError, /share memory/);
});

import test from 'ava';
import { combine } from '../lib/autograd/combine.js';
import { sum } from '../lib/autograd/reduce.js';
import { routerTopK, routeTo } from '../lib/autograd/router.js';
import { routerLoss } from '../lib/autograd/router_loss.js';
import { narrow } from '../lib/autograd/shape.js';
import { DTypeError, KernelError, ShapeError, ValueError } from '../lib/errors.js';
import { scope } from '../lib/scope.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { philox } from './reference/philox.js';
import { numbers } from './support/compare.js';

const key = [3, 4] as const;

/** [N, p.length] with the same row throughout, of probabilities. */
function repeated(p: readonly number[], N: number): Tensor {
  return tensor(Array.from({ length: N }, () => p).flat(), { shape: [N, p.length] });
}

/** Logits of these probabilities. */
function logitsOf(p: readonly number[], N: number): Tensor {
  return repeated(p.map(Math.log), N);
}

test('the oracle of the generator gives the published numbers', (t) => {
  // kat_vectors of Random123: philox4x32-10.
  t.deepEqual(philox(0n, 0n, 0n), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  t.deepEqual(
    philox(0x299f31d0a4093822n, 0x0370734413198a2en, 0x85a308d3243f6a88n),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  );
});

test('draws follow the probabilities, without replacement, after the largest', async (t) => {
  const N = 30000;
  const p = [0.4, 0.3, 0.15, 0.1, 0.05];
  const { plan } = routerTopK(logitsOf(p, N), { k: 3, sample: 2, key });
  const experts = await numbers(plan.experts);
  const counts = new Map<string, number>();
  for (let n = 0; n < N; n++) {
    const [first, a, b] = experts.subarray(3 * n, 3 * n + 3) as unknown as [number, number, number];
    t.true(first === 0 && a !== 0 && b !== 0 && a !== b);
    counts.set(`${a},${b}`, (counts.get(`${a},${b}`) ?? 0) + 1);
  }
  let chiSquare = 0;
  for (const a of [1, 2, 3, 4]) {
    for (const b of [1, 2, 3, 4].filter((e) => e !== a)) {
      const expected = (N * (p[a] as number) * (p[b] as number)) / 0.6 / (0.6 - (p[a] as number));
      chiSquare += ((counts.get(`${a},${b}`) ?? 0) - expected) ** 2 / expected;
    }
  }
  // 12 outcomes: the 0.999 quantile of chi-square with 11 degrees of freedom.
  t.true(chiSquare < 31.3, `chi-square ${chiSquare}`);
});

test('an expert of probability 0 can be drawn when nothing else is left', async (t) => {
  const { plan } = routerTopK(logitsOf([1, 0, 0], 50), { k: 3, sample: 2, key });
  const experts = await numbers(plan.experts);
  for (let n = 0; n < 50; n++) t.deepEqual([...experts.subarray(3 * n, 3 * n + 3)].sort(), [0, 1, 2]);
});

test('the key decides the draws', async (t) => {
  const draw = (stream: number): Promise<Float64Array> =>
    numbers(
      routerTopK(logitsOf([0.25, 0.25, 0.25, 0.25], 64), { k: 2, sample: 2, key: [1, stream] }).plan.experts,
    );
  t.deepEqual(await draw(1), await draw(1));
  t.notDeepEqual(await draw(1), await draw(2));
});

test('NaN logits give legal, distinct experts and NaN gates', async (t) => {
  const E = 6;
  for (const sample of [0, 1, 3]) {
    const { plan, gates } = routerTopK(logitsOf([NaN, 0.2, NaN, NaN, 0.5, NaN], 40), { k: 3, sample, key });
    const experts = await numbers(plan.experts);
    for (let n = 0; n < 40; n++) {
      const row = [...experts.subarray(3 * n, 3 * n + 3)];
      t.is(new Set(row).size, 3);
      t.true(row.every((e) => e >= 0 && e < E));
      if (sample === 0) t.deepEqual(row, [0, 1, 2]);
    }
    t.true((await numbers(gates)).some(Number.isNaN));
    t.deepEqual(
      [...(await numbers(plan.order))].sort((a, b) => a - b),
      Array.from({ length: 120 }, (_, i) => i),
    );
  }
});

test('a plan survives the scope that returns it', async (t) => {
  const { plan } = scope(() => routerTopK(logitsOf([0.1, 0.9], 3), { k: 1 }));
  t.deepEqual([...(await numbers(plan.offsets))], [0, 0, 3]);
  t.deepEqual([plan.topK, plan.numExperts], [1, 2]);
});

test('recorded experts out of range fail in every wait on what comes of them', async (t) => {
  for (const bad of [-1, 3]) {
    const experts = tensor([0, bad], { dtype: 'i32', shape: [2, 1] });
    const { plan, gates } = routeTo(repeated([0.2, 0.3, 0.5], 2), experts);
    const message = new RegExp(`experts holds ${bad}, expected 0 to 2`);
    await t.throwsAsync(gates.data(), { instanceOf: KernelError, message });
    await t.throwsAsync(plan.order.data(), { instanceOf: KernelError, message });
    await t.throwsAsync(plan.offsets.data(), { instanceOf: KernelError, message });
  }
});

test('combine makes only the gradients that are wanted', async (t) => {
  for (const [wantY, wantGates] of [
    [true, false],
    [false, true],
  ] as const) {
    const y = tensor([[1], [2], [3], [4]], { requiresGrad: wantY });
    const gates = tensor([[0.5, 0.25]], { shape: [1, 2], requiresGrad: wantGates });
    sum(combine(narrow(y, 0, 2), gates, 2)).backward();
    t.deepEqual(y.grad && [...(await numbers(y.grad))], wantY ? [0.5, 0.25, 0, 0] : null);
    t.deepEqual(gates.grad && [...(await numbers(gates.grad))], wantGates ? [1, 2] : null);
  }
});

test('misuse is named', (t) => {
  const probs = repeated([0.5, 0.3, 0.2], 4);
  const i32 = (shape: number[]): Tensor =>
    tensor(new Int32Array(shape.reduce((a, b) => a * b, 1)), { shape, dtype: 'i32' });
  for (const k of [0, 4, -1])
    t.throws(() => routerTopK(probs, { k }), {
      instanceOf: ShapeError,
      message: new RegExp(`k is ${k}, expected 1`),
    });
  t.throws(() => routerTopK(probs, { k: 1.5 }), { instanceOf: ValueError });
  t.throws(() => routerTopK(probs, { k: 2, sample: 3, key }), {
    instanceOf: ValueError,
    message: /sample is 3/,
  });
  t.throws(() => routerTopK(probs, { k: 2, sample: 1 }), { instanceOf: ValueError, message: /key/ });
  t.throws(() => routerTopK(tensor([1, 2]), { k: 1 }), {
    instanceOf: ShapeError,
    message: /logits has shape \[2\]/,
  });
  t.throws(() => routerTopK(tensor([[1, 2]], { dtype: 'bf16' }), { k: 1 }), {
    instanceOf: DTypeError,
    message: /route: logits has dtype bf16, expected f64 or f32/,
  });
  t.throws(() => routeTo(probs, i32([3, 2])), {
    instanceOf: ShapeError,
    message: /experts has shape \[3, 2\]/,
  });

  const { plan, gates } = routerTopK(probs, { k: 2 });
  t.throws(() => routerLoss(probs, repeated([1, 0], 4), gates, plan), {
    instanceOf: ShapeError,
    message: /probs/,
  });
  t.throws(() => routerLoss(probs, probs, gates, plan, i32([5])), {
    instanceOf: ShapeError,
    message: /mask/,
  });
  t.throws(() => routerLoss(probs, probs, gates, plan, tensor([1, 1, 1, 1])), { instanceOf: DTypeError });

  t.throws(() => combine(tensor([[1], [2], [3]]), null, 2), {
    instanceOf: ShapeError,
    message: /multiple of topK = 2/,
  });
  t.throws(() => combine(tensor([[1], [2]]), tensor([[1, 1]], { dtype: 'f64' }), 2), {
    instanceOf: DTypeError,
  });
  t.throws(() => combine(tensor([[1], [2]]), tensor([[1], [1]]), 2), {
    instanceOf: ShapeError,
    message: /gates/,
  });
  t.throws(() => combine(tensor([[1]]), null, 0), { instanceOf: ValueError, message: /topK is 0/ });
});

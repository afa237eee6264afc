import test from 'ava';
import { CheckpointError, ShapeError, ValueError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { tensor, type DType, type Tensor } from '../lib/tensor.js';
import { adamW as referenceStep, type AdamWState } from './reference/adamw.js';
import { numbers, relativeError, roundTo } from './support/compare.js';
import { normals } from './support/random.js';

const options = { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 } as const;

function parameter(seed: number, length = 20, dtype: DType = 'f64'): Tensor {
  return tensor(normals(seed, length), { dtype, requiresGrad: true });
}

function setGradient(p: Tensor, values: ArrayLike<number>): void {
  p.grad = tensor(Float64Array.from(values), { dtype: p.dtype, shape: p.shape });
}

const fresh = (w: Float64Array): AdamWState => ({
  w: Float64Array.from(w),
  m: new Float64Array(w.length),
  v: new Float64Array(w.length),
  step: 0,
});

test('groups have options of their own, and parameters without gradient stay', async (t) => {
  const [a, b, c] = [parameter(1), parameter(2), parameter(3)];
  const before = await Promise.all([a, b, c].map(numbers));
  const optimizer = new AdamW([{ params: [a] }, { params: [b, c], lr: 0.5, weightDecay: 0 }], options);
  const states = before.map(fresh);
  for (const step of [0, 1, 2]) {
    const [ga, gb] = [normals(10 + step, 20), normals(20 + step, 20)];
    setGradient(a, ga);
    setGradient(b, gb);
    optimizer.step();
    optimizer.zeroGrad();
    t.is(a.grad, null);
    referenceStep(states[0] as AdamWState, ga, options);
    referenceStep(states[1] as AdamWState, gb, { ...options, lr: 0.5, weightDecay: 0 });
  }
  t.true(relativeError(await numbers(a), (states[0] as AdamWState).w) < 1e-14);
  t.true(relativeError(await numbers(b), (states[1] as AdamWState).w) < 1e-14);
  t.deepEqual(await numbers(c), before[2]);
});

test('lr is read at every step and set for all groups', async (t) => {
  const p = parameter(4);
  const optimizer = new AdamW([p], { ...options, weightDecay: 0 });
  optimizer.lr = 0;
  const before = await numbers(p);
  setGradient(p, normals(5, 20));
  optimizer.step();
  t.deepEqual(await numbers(p), before);
  optimizer.lr = 0.25;
  t.is(optimizer.groups[0]?.lr, 0.25);
  optimizer.step();
  t.notDeepEqual(await numbers(p), before);
});

test('bf16 parameters follow an f32 master that small steps do not get lost in', async (t) => {
  const p = tensor(new Float64Array(8).fill(1), { dtype: 'bf16', requiresGrad: true });
  const optimizer = new AdamW([['w', p]], { ...options, lr: 1e-4, weightDecay: 0 });
  for (let i = 0; i < 100; i++) {
    setGradient(p, new Float64Array(8).fill(1));
    optimizer.step();
  }
  const state = new Map(optimizer.namedState());
  const master = await numbers(state.get('w.master') as Tensor);
  t.true(Math.abs((master[0] as number) - 0.99) < 1e-5);
  t.deepEqual(await numbers(p), roundTo(master, 'bf16'));
});

test('clipGradNorm scales to the norm, returns the one before, and leaves small gradients alone', async (t) => {
  const [a, b, c] = [parameter(6), parameter(7), parameter(8)];
  setGradient(a, new Float64Array(20).fill(3));
  setGradient(b, new Float64Array(20).fill(-4));
  const norm = await clipGradNorm([a, b, c, a], 1).item();
  t.true(Math.abs(norm - Math.sqrt(500)) < 1e-12);
  t.true(
    relativeError(await numbers(a.grad as unknown as Tensor), new Float64Array(20).fill(3 / (norm + 1e-6))) <
      1e-14,
  );
  t.true(Math.abs((await clipGradNorm([a, b], Infinity).item()) - 1) < 1e-6);
  const kept = await numbers(a.grad as unknown as Tensor);
  clipGradNorm([a], 100);
  t.deepEqual(await numbers(a.grad as unknown as Tensor), kept);
  t.is(await clipGradNorm([c], 1).item(), 0);
  t.throws(() => clipGradNorm([a], 0), { instanceOf: ValueError, message: /maxNorm is 0/ });
  t.throws(() => clipGradNorm([a], NaN), { instanceOf: ValueError });
});

for (const clip of [true, false]) {
  for (const bad of [NaN, Infinity]) {
    test(`a gradient of ${bad} leaves everything as it was, ${clip ? 'with' : 'without'} clipping`, async (t) => {
      const [a, b] = [parameter(9, 20, 'f32'), parameter(10, 20, 'bf16')];
      const optimizer = new AdamW([a, b], options);
      const snapshot = async (): Promise<string> =>
        JSON.stringify(
          await Promise.all(
            [a, b, ...[...optimizer.namedState()].map(([, x]) => x)].map((x) => x.bytes().then(String)),
          ),
        );
      const step = (gradient: Float64Array): void => {
        setGradient(a, gradient);
        setGradient(b, normals(12, 20));
        if (clip) clipGradNorm([a, b], 1);
        optimizer.step();
        optimizer.zeroGrad();
      };
      step(normals(11, 20));
      const before = await snapshot();
      step(normals(11, 20).fill(bad, 3, 4));
      t.is(await snapshot(), before);
      step(normals(13, 20));
      t.not(await snapshot(), before);
      t.is(await (new Map(optimizer.namedState()).get('0.step') as Tensor).item(), 2);
    });
  }
}

test('a flag from clipping is not used for gradients that changed since', async (t) => {
  const p = parameter(14);
  const optimizer = new AdamW([p], options);
  const before = await numbers(p);
  setGradient(p, normals(15, 20));
  clipGradNorm([p], 1);
  const gradient = p.grad as unknown as Tensor;
  native.accumulate(tensor(new Float64Array(20).fill(NaN), { dtype: 'f64' }).id, gradient.id, 1);
  gradient.version.count++;
  optimizer.step();
  t.deepEqual(await numbers(p), before);
});

test('state survives scopes, and a loaded optimizer continues bit for bit', async (t) => {
  for (const dtype of ['f64', 'f32', 'bf16'] as const) {
    const run = (p: Tensor, optimizer: AdamW, steps: number[]): void => {
      for (const i of steps) {
        scope(() => {
          setGradient(p, normals(30 + i, 20));
          clipGradNorm([p], 1);
          optimizer.step();
          optimizer.zeroGrad();
        });
      }
    };
    const whole = parameter(16, 20, dtype);
    run(whole, new AdamW([whole], options), [0, 1, 2, 3]);

    const first = parameter(16, 20, dtype);
    const firstOptimizer = new AdamW([first], options);
    run(first, firstOptimizer, [0, 1]);
    const saved = await Promise.all(
      [...firstOptimizer.namedState()].map(
        async ([name, x]) => [name, tensor(await x.data(), { dtype: x.dtype })] as const,
      ),
    );
    const second = tensor(await first.data(), { dtype, requiresGrad: true });
    const secondOptimizer = new AdamW([second], options);
    secondOptimizer.loadState(saved);
    secondOptimizer.loadState(secondOptimizer.namedState());
    run(second, secondOptimizer, [2, 3]);
    t.deepEqual(await second.bytes(), await whole.bytes(), dtype);
  }
});

test('state that does not fit is refused and changes nothing', async (t) => {
  const p = parameter(17, 20, 'f32');
  const optimizer = new AdamW([['w', p]], options);
  setGradient(p, normals(18, 20));
  optimizer.step();
  const good = [...optimizer.namedState()];
  const replaced = (name: string, x: Tensor | null): (readonly [string, Tensor])[] =>
    good.flatMap(([key, value]) => (key !== name ? [[key, value] as const] : x ? [[key, x] as const] : []));
  const cases: [(readonly [string, Tensor])[], RegExp][] = [
    [[...good, ['x.m', tensor([1])]], /'x\.m' belongs to none/],
    [replaced('w.v', null), /'w\.v' is missing/],
    [replaced('w.m', tensor([1, 2])), /'w\.m' is f32 \[2\], expected f32 \[20\]/],
    [replaced('w.step', tensor([1])), /'w\.step' is f32 \[1\], expected i32 \[1\]/],
  ];
  for (const [state, message] of cases)
    t.throws(() => optimizer.loadState(state), { instanceOf: CheckpointError, message });
  t.is(await (new Map(optimizer.namedState()).get('w.step') as Tensor).item(), 1);
});

test('misuse is named', (t) => {
  const p = parameter(19);
  const q = parameter(20);
  t.throws(() => new AdamW([]), { instanceOf: ValueError, message: /no parameters/ });
  t.throws(() => new AdamW([p, q, p]), { instanceOf: ValueError, message: /'2' is given twice|given twice/ });
  t.throws(() => new AdamW([tensor([1], { dtype: 'i32' })]), {
    instanceOf: ValueError,
    message: /dtype i32/,
  });
  t.throws(() => new AdamW([p], { lr: -1 }), { instanceOf: ValueError, message: /lr is -1/ });
  t.throws(() => new AdamW([p], { betas: [0.9, 1] }), { instanceOf: ValueError, message: /betas is 1/ });
  t.throws(() => new AdamW([p], { weightDecay: NaN }), {
    instanceOf: ValueError,
    message: /weightDecay is NaN/,
  });
  const optimizer = new AdamW([p, q], options);
  t.throws(() => (optimizer.lr = NaN), { instanceOf: ValueError, message: /lr is NaN/ });
  p.grad = tensor([1, 2, 3], { dtype: 'f64' });
  t.throws(() => optimizer.step(), {
    instanceOf: ShapeError,
    message: /gradients has shape \[3\], expected \[20\]/,
  });
});

test('thousands of steps hold no more memory', async (t) => {
  const p = parameter(21, 1000, 'f32');
  const optimizer = new AdamW([p], options);
  const step = (): void =>
    scope(() => {
      setGradient(p, new Float64Array(1000).fill(1e-3));
      clipGradNorm([p], 1);
      optimizer.step();
      optimizer.zeroGrad();
    });
  step();
  await native.synchronize();
  const before = native.memoryStats().live;
  for (let i = 0; i < 3000; i++) step();
  await native.synchronize();
  globalThis.gc?.();
  t.true(native.memoryStats().live - before < 1e6, `${native.memoryStats().live - before} bytes more`);
});

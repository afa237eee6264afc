import test from 'ava';
import { add, affine, attention, cacheAppend, fill, increment, mul } from '../lib/autograd/index.js';
import { DTypeError, HandleError, KernelError, ValueError } from '../lib/errors.js';
import { devices } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { Program } from '../lib/program.js';
import { scope } from '../lib/scope.js';
import * as tensors from '../lib/tensor.js';
import type { Tensor, TensorOptions } from '../lib/tensor.js';
import { testDevice as device } from './support/device.js';

const empty = (shape: number[]): Tensor => tensors.empty(shape, 'f32', device);
const tensor = (values: number[] | Float32Array, options: TensorOptions = {}): Tensor =>
  tensors.tensor(values, { ...options, device });

const numbers = async (x: Tensor): Promise<number[]> => Array.from(await x.data(), Number);

/** A program that sets x to x * x + 1 by way of temporaries. */
function squaring(x: Tensor): Program {
  return new Program(device, () =>
    scope(() => {
      const next = affine(mul(x, x), 1, 1);
      native.copyInto(next.id, x.id);
    }),
  );
}

test.serial('what is recorded does not run until it is replayed, then every time', async (t) => {
  using x = tensor([1, 2]);
  const program = squaring(x);
  t.deepEqual(await numbers(x), [1, 2]);
  program.run();
  t.deepEqual(await numbers(x), [2, 5]);
  native.write(x.id, Float32Array.of(3, 0), 0);
  program.run();
  program.run();
  t.deepEqual(await numbers(x), [101, 2]);
  program.dispose();
});

test.serial('memory of a program is its own until it is disposed', async (t) => {
  using x = tensor(new Float32Array(1000).fill(1));
  await native.synchronize();
  const before = native.memoryStats().live;
  const program = squaring(x);
  const held = native.memoryStats().live;
  t.true(held >= before + 4000);
  for (let i = 0; i < 20; i++) {
    fill(x, 2);
    scope(() => fill(empty([1000]), 7)); // would be a temporary of the program if blocks were shared
    program.run();
    scope(() => fill(empty([1000]), 9));
    t.true((await numbers(x)).every((value) => value === 5));
  }
  t.is(native.memoryStats().live, held);
  fill(x, 2);
  program.run();
  program.dispose(); // with a run in the queue
  scope(() => fill(empty([1000]), 11));
  t.true((await numbers(x)).every((value) => value === 5));
  t.is(native.memoryStats().live, before);
  t.throws(() => program.run(), { instanceOf: HandleError, message: /replay: the program is disposed/ });
  program.dispose();
});

test.serial(
  'tensors of a program outlive their handles, and a recording that fails leaves nothing',
  async (t) => {
    const x = tensor([2]);
    using y = tensor([0]);
    const program = new Program(device, () => native.copyInto(x.id, y.id));
    x.dispose();
    using other = tensor([5]); // not in the memory of x
    program.run();
    t.deepEqual(await numbers(y), [2]);
    t.deepEqual(await numbers(other), [5]);
    program.dispose();

    const before = native.memoryStats().live;
    const broken = new Error('broken');
    t.throws(
      () =>
        new Program(device, () => {
          scope(() => void add(y, y));
          throw broken;
        }),
      { is: broken },
    );
    t.is(native.memoryStats().live, before);
    using sum = add(y, y); // runs again
    t.deepEqual(await numbers(sum), [4]);
  },
);

test.serial('misuse: recordings inside each other, waits, unknown devices', (t) => {
  using x = tensor([1]);
  const program = squaring(x);
  const refused = (fn: () => void, message: RegExp): unknown =>
    t.throws(() => new Program(device, fn), { instanceOf: ValueError, message });
  refused(() => new Program(device, () => undefined), /recorded already/);
  refused(() => native.beginRecording(devices.indexOf(device)), /recorded already/);
  refused(() => program.run(), /cannot be part of another/);
  refused(() => void native.read(x.id, new Float32Array(1), false), /nothing can be waited for/);
  t.throws(() => native.canReplay(7), { instanceOf: ValueError, message: /no such device/ });
  t.throws(() => native.endRecording(devices.indexOf(device), {}), {
    instanceOf: ValueError,
    message: /no program is being/,
  });
  t.true(Program.canReplay(device));
  program.dispose();
});

test.serial(
  'an op that fails in a run poisons what follows from it, by name, until it is written again',
  async (t) => {
    using x = tensor([1]);
    const program = squaring(x);
    native.failNext('affine');
    program.run();
    const error = await t.throwsAsync(x.data(), { instanceOf: KernelError, message: /^affine: .*by a test/ });
    program.run();
    await t.throwsAsync(x.data(), { instanceOf: KernelError, message: error.message });
    native.write(x.id, Float32Array.of(2), 0);
    program.run();
    t.deepEqual(await numbers(x), [5]);
    program.dispose();
  },
);

test.serial('a program whose owner is gone is freed', async (t) => {
  const live = async (): Promise<number> => {
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      (globalThis as unknown as { gc: () => void }).gc();
      native.trimMemory();
    }
    return native.memoryStats().live;
  };
  const before = await live();
  scope(() => squaring(tensor(new Float32Array(1 << 20))));
  t.true(native.memoryStats().live > before + 4_000_000);
  t.is(await live(), before);
});

test('increment adds 1 to integers', async (t) => {
  using x = tensor([1, -1, 5], { dtype: 'i32' });
  increment(x);
  increment(x);
  t.deepEqual(await numbers(x), [3, 1, 7]);
  using real = tensor([1]);
  t.throws(() => increment(real), {
    instanceOf: DTypeError,
    message: /increment: x has dtype f32, expected i32/,
  });
});

test('attention and the cache take the position from a tensor', async (t) => {
  const shape = [2, 9, 2, 4];
  const random = (seed: number, sizes: number[]): Tensor => {
    const x = empty(sizes);
    native.random(1, x.id, 0, 1, [seed, 0]);
    return x;
  };
  const [q, keys, values] = [random(1, [2, 1, 3, 2, 4]), random(2, shape), random(3, shape)];
  const keyMask = tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], {
    dtype: 'i32',
    shape: [2, 9],
  });
  const narrowMask = tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], { dtype: 'i32', shape: [2, 6] });
  const position = tensor([5], { dtype: 'i32' });
  for (const kind of ['stickBreaking', 'softmax'] as const) {
    const fixed = attention(q, keys, values, { kind, keyMask: narrowMask, keyLength: 6 });
    const told = attention(q, keys, values, { kind, keyMask, position });
    t.deepEqual(await numbers(told), await numbers(fixed));
  }

  const [a, b] = [random(4, shape), random(4, shape)];
  const row = random(5, [2, 1, 2, 4]);
  cacheAppend(row, a, 6);
  cacheAppend(row, b, 1, position);
  t.deepEqual(await numbers(b), await numbers(a));

  const beyond = tensor([9], { dtype: 'i32' });
  const outside = attention(q, keys, values, { position: beyond });
  await t.throwsAsync(outside.data(), {
    instanceOf: KernelError,
    message: /attention: position is 9, expected 0 to 8/,
  });
  cacheAppend(row, b, 0, beyond);
  await t.throwsAsync(b.data(), {
    instanceOf: KernelError,
    message: /cacheAppend: the first row is 9, expected 0 to 8/,
  });
});

import test from 'ava';
import { HandleError, ShapeError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';

test('values come back in every dtype', async (t) => {
  for (const dtype of ['f64', 'f32', 'bf16', 'i64', 'i32', 'i8', 'u8'] as const) {
    const x = tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { dtype },
    );
    t.deepEqual(x.shape, [2, 3]);
    t.is(x.dtype, dtype);
    t.is(x.device, 'cpu');
    t.deepEqual(Array.from(await x.data(), Number), [1, 2, 3, 4, 5, 6]);
  }
});

test('bf16 rounds to nearest even', async (t) => {
  const x = tensor([1 + 2 ** -8, 1 + 3 * 2 ** -8, NaN, Infinity], { dtype: 'bf16' });
  t.deepEqual([...(await x.data())].map(Number), [1, 1 + 2 ** -6, NaN, Infinity]);
});

test('ragged arrays and wrong shapes are rejected', (t) => {
  t.throws(() => tensor([[1, 2], [3]]), { instanceOf: ShapeError, message: /differ in length/ });
  t.throws(() => tensor([1, 2, 3], { shape: [2, 2] }), {
    instanceOf: ShapeError,
    message: /3 values.*\[2, 2\]/,
  });
});

test('a disposed tensor is recognised', async (t) => {
  const x = tensor([1]);
  const stale = x.id;
  x.dispose();
  x.dispose();
  t.throws(() => x.shape, { instanceOf: HandleError });
  await t.throwsAsync(x.data(), { instanceOf: HandleError });
  t.throws(() => native.reshape(stale, [1]), { instanceOf: HandleError, message: /reshape: x is disposed/ });
  for (const bad of [NaN, -1, 1.5, 2 ** 60, Infinity]) {
    t.throws(() => native.reshape(bad, [1]), { instanceOf: HandleError });
  }
  t.throws(() => native.reshape('x' as unknown as number, [1]), {
    instanceOf: HandleError,
    message: /must be a tensor/,
  });
});

test('scope frees what is not returned', (t) => {
  const before = native.memoryStats().tensors;
  const kept = scope(() => {
    tensor([1, 2, 3]);
    scope(() => tensor([4]));
    return { nested: [tensor([5])] };
  });
  t.is(native.memoryStats().tensors, before + 1);
  kept.nested[0]?.dispose();
  t.is(native.memoryStats().tensors, before);
  t.throws(() => scope(() => Promise.resolve(1)), { message: /promise/ });
});

test('forgotten tensors are freed without an await', (t) => {
  const start = native.memoryStats().live;
  for (let i = 0; i < 2000; i++) tensor(new Float32Array(250_000));
  t.true(native.memoryStats().peak - start < 500e6, `peak ${native.memoryStats().peak}`);
});

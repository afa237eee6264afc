import test from 'ava';
import { crossEntropy } from '../lib/autograd/cross_entropy.js';
import * as ops from '../lib/autograd/elementwise.js';
import { embedding } from '../lib/autograd/embedding.js';
import { l2Normalize } from '../lib/autograd/l2_normalize.js';
import { linearCrossEntropy } from '../lib/autograd/linear_cross_entropy.js';
import { layerNorm, rmsNorm } from '../lib/autograd/norm.js';
import * as reduce from '../lib/autograd/reduce.js';
import { narrow, reshape } from '../lib/autograd/shape.js';
import { logSoftmax, softmax } from '../lib/autograd/softmax.js';
import { AutogradError, DTypeError, KernelError, ShapeError, ValueError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { numbers } from './support/compare.js';

const matrix = (rows: number, columns: number, dtype: 'f32' | 'f64' | 'bf16' = 'f32'): Tensor =>
  tensor(new Float32Array(rows * columns).fill(1), { shape: [rows, columns], dtype });
const ids = (...values: number[]): Tensor => tensor(values, { dtype: 'i32' });

test('shapes and dtypes that do not fit are named', (t) => {
  const shape = (fn: () => unknown, message: RegExp): unknown =>
    t.throws(fn, { instanceOf: ShapeError, message });
  const dtype = (fn: () => unknown, message: RegExp): unknown =>
    t.throws(fn, { instanceOf: DTypeError, message });
  const x = matrix(2, 3);

  shape(
    () => ops.add(x, matrix(3, 2)),
    /add: b has shape \[3, 2\], expected trailing dimensions of a's \[2, 3\]/,
  );
  shape(() => ops.mul(x, tensor([1, 2])), /mul: b has shape \[2\]/);
  shape(() => ops.sub(tensor([1, 2, 3]), x), /sub: b has shape \[2, 3\]/);
  dtype(() => ops.div(x, matrix(2, 3, 'f64')), /div: b has dtype f64, expected f32/);
  dtype(() => ops.gelu(ids(1)), /unary: x has dtype i32, expected f64, f32 or bf16/);
  shape(() => ops.copyInto(x, matrix(3, 2)), /copyInto: y has shape \[2, 3\], expected \[3, 2\]/);

  shape(() => reduce.sum(x, 2), /sum: dimension 2 of shape \[2, 3\] does not exist/);
  shape(() => reduce.mean(x, -3), /mean: dimension -3/);
  shape(() => reduce.sumRows(tensor(1)), /sumRows: dimension -1/);
  shape(() => reduce.mulRows(x, tensor([1, 2, 3])), /mulRows: s has shape \[3\], expected 2 elements/);
  dtype(
    () => reduce.mulRows(matrix(2, 3, 'bf16'), tensor([1, 2], { dtype: 'bf16' })),
    /mulRows: s has dtype bf16/,
  );
  shape(() => reduce.rowDot(x, matrix(2, 4)), /rowDot: b has shape \[2, 4\], expected \[2, 3\]/);

  shape(() => reshape(x, [4]), /reshape: \[2, 3\] cannot become \[4\]/);
  shape(() => narrow(x, 1, 2), /narrow: \[1, 3\) is outside dimension 0 of \[2, 3\]/);

  shape(() => embedding(tensor([1, 2]), ids(0)), /embedding: weight has shape \[2\], expected 2 dimensions/);
  dtype(() => embedding(x, tensor([0])), /embedding: ids has dtype f32, expected i32 or i64/);

  shape(() => layerNorm(x, tensor([1, 2]), null), /layerNorm: weight has shape \[2\], expected \[3\]/);
  shape(
    () => layerNorm(x, tensor([1, 2, 3]), tensor([1])),
    /layerNorm: bias has shape \[1\], expected \[3\]/,
  );
  shape(() => rmsNorm(tensor(1), tensor([1])), /rmsNorm: x has shape \[\], expected at least 1 dim/);
  dtype(() => rmsNorm(x, tensor([1, 2, 3], { dtype: 'f64' })), /rmsNorm: weight has dtype f64, expected f32/);
  t.throws(() => rmsNorm(x, tensor([1, 2, 3]), -1), {
    instanceOf: ValueError,
    message: /rmsNorm: eps is -1/,
  });

  shape(() => softmax(tensor(1)), /softmax: x has shape \[\]/);
  dtype(() => logSoftmax(ids(1)), /logSoftmax: x has dtype i32/);
  dtype(() => l2Normalize(ids(1)), /l2Normalize: x has dtype i32/);

  shape(() => crossEntropy(x, ids(0)), /crossEntropy: labels has shape \[1\], expected \[2\]/);
  dtype(() => crossEntropy(x, tensor([0, 1])), /crossEntropy: labels has dtype f32, expected i32 or i64/);
  shape(
    () => linearCrossEntropy(x, matrix(5, 4), ids(0, 1)),
    /linearCrossEntropy: weight has shape \[5, 4\], expected \[5, 3\]/,
  );
  dtype(
    () => linearCrossEntropy(x, matrix(5, 3, 'bf16'), ids(0, 1)),
    /linearCrossEntropy: weight has dtype bf16, expected f32/,
  );
  t.throws(() => native.unary(99, x.id), { instanceOf: ValueError, message: /unary: kind is 99/ });
});

test('an id outside the vocabulary fails the result, which says which and where', async (t) => {
  const weight = matrix(4, 3);
  for (const bad of [4, -1, 2 ** 31 - 1]) {
    const result = ops.scale(embedding(weight, ids(0, bad)), 2);
    await t.throwsAsync(result.data(), {
      instanceOf: KernelError,
      message: `embedding: id ${bad} at position 1 is outside the vocabulary, expected 0 to 3`,
    });
  }
  const far = tensor(BigInt64Array.from([2n ** 40n]));
  await t.throwsAsync(embedding(weight, far).data(), { message: /id 1099511627776 at position 0/ });
  t.deepEqual([...(await numbers(embedding(weight, ids(3))))], [1, 1, 1]);
});

test('a label that is no class fails the loss, which says which and where', async (t) => {
  for (const bad of [3, -1, -99]) {
    const expected = `label ${bad} at position 1, expected 0 to 2, or -100 to ignore it`;
    await t.throwsAsync(crossEntropy(matrix(2, 3), ids(0, bad)).item(), {
      instanceOf: KernelError,
      message: `crossEntropy: ${expected}`,
    });
    await t.throwsAsync(linearCrossEntropy(matrix(2, 4), matrix(3, 4), ids(0, bad)).item(), {
      instanceOf: KernelError,
      message: `linearCrossEntropy: ${expected}`,
    });
  }
});

test('conversions to integers saturate', async (t) => {
  const x = tensor([NaN, 1e30, -1e30, Infinity, -Infinity, 127.9, -128.9, -0.9, 255.5, 300], {
    dtype: 'f64',
  });
  t.deepEqual([...(await numbers(ops.cast(x, 'i8')))], [0, 127, -128, 127, -128, 127, -128, 0, 127, 127]);
  t.deepEqual([...(await numbers(ops.cast(x, 'u8')))], [0, 255, 0, 255, 0, 127, 0, 0, 255, 255]);
  t.deepEqual([...(await numbers(ops.cast(x, 'i32')))].slice(0, 3), [0, 2 ** 31 - 1, -(2 ** 31)]);
  const whole = tensor([-5, 0, 7], { dtype: 'i64' });
  for (const dtype of ['f64', 'f32', 'bf16', 'i32', 'i8'] as const)
    t.deepEqual([...(await numbers(ops.cast(whole, dtype)))], [-5, 0, 7]);
});

test('NaN comes through', async (t) => {
  for (const dtype of ['f64', 'f32', 'bf16'] as const) {
    const x = tensor([1, NaN, 3, 4], { shape: [2, 2], dtype });
    const one = tensor([1, 1], { dtype });
    const rows = [softmax(x), logSoftmax(x), l2Normalize(x), layerNorm(x, one, one), rmsNorm(x, one)];
    for (const y of rows) {
      const values = [...(await numbers(y))];
      t.deepEqual(values.map(Number.isNaN), [true, true, false, false]);
    }
    const names = [
      'gelu',
      'geluNew',
      'silu',
      'relu',
      'sigmoid',
      'tanh',
      'exp',
      'log',
      'sqrt',
      'abs',
      'softplus',
    ] as const;
    for (const name of names) {
      const values = [...(await numbers(ops[name](x)))];
      t.deepEqual(values.map(Number.isNaN), [false, true, false, false], `${name} ${dtype}`);
    }
    t.true(Number.isNaN(await reduce.sum(x).item()));
    t.true(Number.isNaN(await crossEntropy(x, ids(0, 1)).item()));
    t.true(Number.isNaN(await linearCrossEntropy(x, x, ids(0, 1)).item()));
  }
});

test('the ends of the range of f32', async (t) => {
  const x = tensor([-Infinity, -100, 100, Infinity, 0]);
  t.deepEqual([...(await numbers(ops.exp(x)))], [0, 0, Infinity, Infinity, 1]);
  t.deepEqual([...(await numbers(ops.log(tensor([0, Infinity, 1]))))], [-Infinity, Infinity, 0]);
  t.true(Number.isNaN(await ops.log(tensor([-1])).item()));
  t.deepEqual([...(await numbers(ops.tanh(x)))], [-1, -1, 1, 1, 0]);
  const masked = [...(await numbers(softmax(tensor([[-Infinity, 0, 0]]))))];
  t.deepEqual(masked, [0, 0.5, 0.5]);
});

test('a long f32 sum is accurate', async (t) => {
  const n = 3_000_000;
  const total = await reduce.sum(tensor(new Float32Array(n).fill(0.1))).item();
  const exact = n * Math.fround(0.1);
  t.true(Math.abs(total - exact) / exact < 5e-7, `${total} for ${exact}`);
});

test('changing a tensor that backward needs is caught', (t) => {
  const x = tensor([1, 2], { requiresGrad: true });
  for (const change of [(y: Tensor) => ops.fill(y, 1), (y: Tensor) => ops.copyInto(y, tensor([3, 4]))]) {
    const y = ops.scale(x, 2);
    const loss = reduce.sum(ops.square(y));
    change(y);
    t.throws(() => loss.backward(), {
      instanceOf: AutogradError,
      message: /'square' saved was changed in place/,
    });
  }
});

test('gradients flow through reshape and narrow, and add up', async (t) => {
  const x = tensor([1, 2, 3, 4, 5, 6], { dtype: 'f64', requiresGrad: true });
  const rows = reshape(x, [3, 2]);
  reduce.sum(ops.add(ops.square(narrow(rows, 1, 2)), narrow(rows, 0, 2))).backward();
  t.deepEqual([...(await numbers(x.grad as Tensor))], [1, 1, 1 + 6, 1 + 8, 10, 12]);
});

test('the gradient of the fused head is scaled by what comes in', async (t) => {
  const run = async (factor: number): Promise<number[]> => {
    const x = tensor([0.5, -1, 2, 0.25], { shape: [2, 2], requiresGrad: true });
    const weight = tensor([1, 0, 0.5, -0.5, 0.25, 2], { shape: [3, 2], requiresGrad: true });
    ops.scale(linearCrossEntropy(x, weight, ids(0, 2)), factor).backward();
    return [...(await numbers(x.grad as Tensor)), ...(await numbers(weight.grad as Tensor))];
  };
  const once = await run(1);
  t.true(once.some((g) => g !== 0));
  t.deepEqual(
    await run(4),
    once.map((g) => 4 * g),
  );
});

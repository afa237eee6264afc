import test from 'ava';
import {
  add,
  affine,
  checkpoint,
  copyInto,
  dropout,
  mul,
  narrow,
  noGrad,
  reshape,
  square,
  sum,
} from '../lib/autograd/index.js';
import { AutogradError, HandleError, KernelError, OutOfMemoryError, ShapeError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { setMemoryLimit } from '../lib/system.js';
import { tensor, type Tensor } from '../lib/tensor.js';

const leaf = (values: number[]): Tensor => tensor(values, { dtype: 'f64', requiresGrad: true });
const gradient = async (x: Tensor): Promise<number[]> => Array.from((await x.grad?.data()) ?? [], Number);

test('gradients of shared inputs add up, over several backwards too', async (t) => {
  const x = leaf([1, 2, 3]);
  sum(add(mul(x, x), add(x, x))).backward();
  t.deepEqual(await gradient(x), [4, 6, 8]);
  sum(x).backward();
  t.deepEqual(await gradient(x), [5, 7, 9]);
});

test('two leaves that receive one gradient do not share its memory', async (t) => {
  const [a, b] = [leaf([1, 2]), leaf([3, 4])];
  sum(add(a, b)).backward();
  sum(a).backward();
  t.deepEqual(await gradient(a), [2, 2]);
  t.deepEqual(await gradient(b), [1, 1]);
});

test('views pass gradients to what they look at', async (t) => {
  const x = leaf([1, 2, 3, 4, 5, 6]);
  sum(square(narrow(reshape(x, [3, 2]), 1, 1))).backward();
  t.deepEqual(await gradient(x), [0, 0, 6, 8, 0, 0]);
});

test('backward twice through one graph is an error', (t) => {
  const y = sum(square(leaf([1, 2])));
  y.backward();
  t.throws(() => y.backward(), { instanceOf: AutogradError, message: /'sum' was already used/ });
});

test('backward needs a scalar that was computed from something', (t) => {
  t.throws(() => leaf([1]).backward(), { instanceOf: AutogradError, message: /not computed from anything/ });
  t.throws(() => square(leaf([1, 2])).backward(), {
    instanceOf: ShapeError,
    message: /shape \[2\], expected a scalar/,
  });
});

test('changing a saved tensor in place before backward is an error', (t) => {
  const x = leaf([1, 2]);
  const middle = affine(x, 2, 0);
  const y = sum(square(middle));
  copyInto(middle, tensor([7, 7], { dtype: 'f64' }));
  t.throws(() => y.backward(), { instanceOf: AutogradError, message: /'square' saved was changed in place/ });
});

test('noGrad records nothing and rejects promises', (t) => {
  const x = leaf([1, 2]);
  t.false(noGrad(() => square(x)).requiresGrad);
  t.true(square(x).requiresGrad);
  t.throws(() => noGrad(() => Promise.resolve()), { instanceOf: AutogradError, message: /promise/ });
});

test('a graph outlives the scope of its intermediate results', async (t) => {
  const x = leaf([1, 2, 3]);
  const loss = scope(() => sum(square(affine(x, 3, 0))));
  loss.backward();
  t.deepEqual(await gradient(x), [18, 36, 54]);
});

test('backward frees what it used', (t) => {
  const x = leaf(Array.from({ length: 1000 }, () => 1));
  const before = native.memoryStats().tensors;
  const loss = scope(() => sum(square(affine(x, 3, 0))));
  loss.backward();
  loss.dispose();
  t.is(native.memoryStats().tensors, before + 1, 'only the gradient is left');
});

test('checkpointing gives the same gradients, bit for bit', async (t) => {
  const run = async (checkpointed: boolean): Promise<number[]> => {
    const [x, w] = [leaf([1, 2, 3]), leaf([0.3, -0.2, 0.7])];
    const body = ([input]: readonly Tensor[]): Tensor =>
      dropout(square(mul(input as Tensor, w)), 0.5, [1, 2]);
    const y = checkpointed ? checkpoint([affine(x, 2, 0)], [w], body, (z) => [z]) : body([affine(x, 2, 0)]);
    sum(y).backward();
    return [...(await gradient(x)), ...(await gradient(w))];
  };
  t.deepEqual(await run(true), await run(false));
});

test('using a disposed tensor is an error that names the argument', (t) => {
  const x = tensor([1, 2]);
  x.dispose();
  t.throws(() => square(x), { instanceOf: HandleError, message: /x is disposed/ });
});

test('a failing kernel poisons what is computed from it, and nothing else', async (t) => {
  const x = leaf([1, 2]);
  native.failNext('mul');
  const bad = mul(x, x);
  const worse = sum(bad);
  const good = sum(x);
  await t.throwsAsync(worse.item(), { instanceOf: KernelError, message: /^mul: failure injected/ });
  await t.throwsAsync(bad.data(), { instanceOf: KernelError });
  t.is(await good.item(), 3);
  worse.backward();
  await t.throwsAsync(gradient(x), { instanceOf: KernelError, message: /^mul/ });
});

test('a loss that is not finite gives no gradient that looks usable', async (t) => {
  const x = leaf([1, 2]);
  sum(affine(x, Infinity, 0)).backward();
  t.deepEqual(await gradient(x), [NaN, NaN]);
});

test.serial('beyond the memory limit an operation throws, and later ones work', async (t) => {
  const { live } = native.memoryStats();
  setMemoryLimit(live + 10e6);
  try {
    t.throws(() => tensor(new Float32Array(5e6)), {
      instanceOf: OutOfMemoryError,
      message: /20 MB wanted.*limit/,
    });
    t.is(await sum(tensor(new Float32Array(1000).fill(1))).item(), 1000);
  } finally {
    setMemoryLimit(Infinity);
  }
});

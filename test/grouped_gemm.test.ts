import test from 'ava';
import { groupedGemm, linear, type GroupedGemmOptions } from '../lib/autograd/grouped_gemm.js';
import { RoutingPlan } from '../lib/autograd/routing_plan.js';
import { DTypeError, KernelError, ShapeError } from '../lib/errors.js';
import { rowMaps } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { tensor, wrap, type DType, type Tensor } from '../lib/tensor.js';
import { backwardWeighted } from './support/objective.js';
import { normals } from './support/random.js';

const random = (shape: number[], dtype: DType = 'f32'): Tensor =>
  tensor(
    normals(
      5,
      shape.reduce((a, b) => a * b, 1),
    ),
    { shape, dtype },
  );

const slots: GroupedGemmOptions = { inputRows: 'slot', outputRows: 'slot' };

function planOf(experts: number[][], numExperts: number): RoutingPlan {
  const ids = tensor(experts, { dtype: 'i32' });
  return new RoutingPlan(ids, ids, numExperts);
}

test('what does not fit is named', (t) => {
  const plan = planOf(
    [
      [0, 1],
      [1, 0],
      [0, 1],
    ],
    2,
  );
  const x = random([6, 4]);
  const w = random([2, 4, 8]);
  t.throws(() => groupedGemm(x, random([2, 5, 8]), plan, slots), {
    instanceOf: ShapeError,
    message: 'groupedGemm: w has shape [2, 5, 8], expected [2, 4, 8]',
  });
  t.throws(() => groupedGemm(x, random([3, 4, 8]), plan, slots), {
    instanceOf: ShapeError,
    message: 'groupedGemm: offsets has shape [3], expected [4]',
  });
  t.throws(() => groupedGemm(random([3, 4]), w, plan, slots), {
    instanceOf: ShapeError,
    message: /x has shape \[3, 4\]/,
  });
  t.throws(() => groupedGemm(x, w, plan, { ...slots, inputRows: 'token' }), {
    instanceOf: ShapeError,
    message: /expected 3 rows/,
  });
  t.throws(() => groupedGemm(x, random([2, 4, 8], 'f64'), plan, slots), {
    instanceOf: DTypeError,
    message: 'groupedGemm: w has dtype f64, expected f32',
  });
  t.throws(() => groupedGemm(tensor([[1]], { dtype: 'i32' }), w, plan, slots), { instanceOf: DTypeError });
  t.throws(() => linear(x, random([3, 5])), {
    instanceOf: ShapeError,
    message: /weight has shape \[3, 5\], expected \[3, 4\]/,
  });
  t.throws(() => linear(x, random([3, 4]), random([4])), {
    instanceOf: ShapeError,
    message: /bias has shape \[4\]/,
  });
  t.throws(() => linear(x, random([3, 4], 'bf16')), {
    instanceOf: DTypeError,
    message: /weight has dtype bf16/,
  });
  t.throws(() => linear(random([2, 0]), random([3, 0])), { instanceOf: ShapeError, message: /at least 1/ });
});

test('a plan that is none fails its kernel instead of reading elsewhere', async (t) => {
  const ids = tensor([0, 1, 1, 0], { dtype: 'i32', shape: [2, 2] });
  const x = random([4, 4]);
  const w = random([2, 4, 8]);
  const i32 = (values: number[]): Tensor => tensor(values, { dtype: 'i32' });
  const broken = [
    { offsets: i32([0, 9, 4]), message: /offsets\[1\] is 9/ },
    { offsets: i32([0, -1, 4]), message: /offsets\[1\] is -1/ },
    { offsets: i32([0, 2, 3]), message: /offsets\[2\] is 3, expected 4/ },
    { order: i32([0, 1, 2, 4]), message: /order\[3\] is 4/ },
    { order: i32([-1, 1, 2, 3]), message: /order\[0\] is -1/ },
  ];
  for (const { message, ...part } of broken) {
    const y = groupedGemm(x, w, Object.assign(new RoutingPlan(ids, ids, 2), part), slots);
    await t.throwsAsync(y.data(), { instanceOf: KernelError, message });
  }
  t.is((await groupedGemm(x, w, new RoutingPlan(ids, ids, 2), slots).data()).length, 32);
});

test('an expert without rows gets a gradient of zeros', async (t) => {
  const w = random([3, 4, 5]);
  w.requiresGrad = true;
  const y = groupedGemm(random([2, 4]), w, planOf([[0], [2]], 3), { ...slots, activation: 'silu' });
  backwardWeighted([y], [normals(6, 10)]);
  const gradient = (await (w.grad as Tensor).data()) as Float32Array;
  t.true(gradient.subarray(20, 40).every((value) => value === 0));
  t.true(gradient.subarray(0, 20).some((value) => value !== 0));
  t.true(gradient.subarray(40).some((value) => value !== 0));
});

for (const dtype of ['f32', 'bf16'] as const) {
  test(`weight gradients of 32 MB and more, ${dtype}: the bits of each expert alone, zeros without rows`, async (t) => {
    const [E, width, out, N] = [64, 512, 544, 90];
    const experts = Array.from({ length: N }, (_, i) => [(i * i) % 23]);
    const gradient = async (x: Tensor, dy: Tensor, ids: number[][], E: number) => {
      const plan = planOf(ids, E);
      const rows = [rowMaps.indexOf('slot'), rowMaps.indexOf('slot')] as const;
      const id = native.groupedGemmWeightGrad(x.id, dy.id, plan.order.id, plan.offsets.id, 1, ...rows);
      return (await wrap(id).data()) as Float32Array;
    };
    const rowsOf = (values: Float32Array, rows: number[], n: number): Tensor =>
      tensor(Float32Array.from(rows.flatMap((r) => [...values.subarray(r * n, (r + 1) * n)])), {
        shape: [rows.length, n],
        dtype,
      });
    const [x, dy] = [random([N, width], dtype), random([N, out], dtype)];
    const [xs, dys] = [(await x.data()) as Float32Array, (await dy.data()) as Float32Array];
    native.poisonOutputs(true);
    const all = await gradient(x, dy, experts, E);
    native.poisonOutputs(false);
    for (let e = 0; e < E; e++) {
      const mine = all.subarray(e * width * out, (e + 1) * width * out);
      const rows = experts.flatMap(([of], row) => (of === e ? [row] : []));
      if (rows.length === 0) {
        t.true(mine.every((value) => value === 0));
        continue;
      }
      const ids = rows.map(() => [0]);
      const alone = await gradient(rowsOf(xs, rows, width), rowsOf(dys, rows, out), ids, 1);
      t.true(Buffer.from(mine.slice().buffer).equals(Buffer.from(alone.slice().buffer)), `expert ${e}`);
    }
  });
}

import test from 'ava';
import { lastTokenRows, shiftLabels } from '../lib/autograd/tokens.js';
import { DTypeError, ShapeError } from '../lib/errors.js';
import { tensor } from '../lib/tensor.js';

for (const dtype of ['i32', 'i64'] as const) {
  test(`labels move one position to the left, ${dtype}`, async (t) => {
    const labels = tensor(
      [
        [1, 2, 3],
        [-100, 5, 6],
      ],
      { dtype },
    );
    t.deepEqual(Array.from(await shiftLabels(labels).data(), Number), [2, 3, -100, 5, 6, -100]);
  });

  test(`the last token that is no padding, ${dtype}`, async (t) => {
    const ids = tensor(
      [
        [4, 5, 0, 0],
        [4, 0, 6, 7],
        [0, 0, 0, 0],
        [1, 2, 3, 4],
      ],
      { dtype },
    );
    t.deepEqual(Array.from(await lastTokenRows(ids, 0).data(), Number), [1, 6, 11, 15]);
    t.deepEqual(Array.from(await lastTokenRows(ids, null).data(), Number), [3, 7, 11, 15]);
  });
}

test('wrong dtypes and shapes are rejected', (t) => {
  t.throws(() => shiftLabels(tensor([[1, 2]])), { instanceOf: DTypeError, message: /labels has dtype f32/ });
  t.throws(() => shiftLabels(tensor([1, 2], { dtype: 'i32' })), {
    instanceOf: ShapeError,
    message: /2 dimensions/,
  });
});

import { ShapeError } from '../errors.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { scale, sqrt } from './elementwise.js';
import { apply } from './engine.js';

/** Over the dimensions [first, last). */
function sumOver(name: string, x: Tensor, first: number, last: number): Tensor {
  const { shape } = x;
  return apply(native.sum(x.id, first, last), {
    name,
    inputs: [x],
    backward: ([dy]) => [wrap(native.expand((dy as Tensor).id, shape, first, last))],
  });
}

/** A dimension counted from the end where negative. */
function dimension(name: string, x: Tensor, dim: number): number {
  const rank = x.shape.length;
  const index = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(index) || index < 0 || index >= rank)
    throw new ShapeError(`${name}: dimension ${dim} of shape [${x.shape.join(', ')}] does not exist`);
  return index;
}

/** The sum over one dimension, or over all to a scalar. In f32 and bf16 it is formed in f32, pairwise. */
export function sum(x: Tensor, dim?: number): Tensor {
  if (dim === undefined) return sumOver('sum', x, 0, x.shape.length);
  const index = dimension('sum', x, dim);
  return sumOver('sum', x, index, index + 1);
}

/** The mean over one dimension, or over all to a scalar; NaN over no elements. */
export function mean(x: Tensor, dim?: number): Tensor {
  const count = dim === undefined ? x.numel : (x.shape[dimension('mean', x, dim)] as number);
  return scale(sum(x, dim), 1 / count);
}

/**
 * [.., D] -> [D]: the sum over all rows.
 * @throws ShapeError for a scalar.
 */
export function sumRows(x: Tensor): Tensor {
  return sumOver('sumRows', x, 0, dimension('sumRows', x, -1));
}

/** Each row of x [.., D] times its entry of s [..], which is f32 (f64 beside f64). */
export function mulRows(x: Tensor, s: Tensor): Tensor {
  const { shape } = s;
  return apply(native.mulRows(x.id, s.id), {
    name: 'mulRows',
    inputs: [x, s],
    saved: () => [x, s],
    backward: ([dy], [x, s], [wantX, wantS]) => [
      wantX ? wrap(native.mulRows((dy as Tensor).id, (s as Tensor).id)) : null,
      wantS ? wrap(native.reshape(wrap(native.rowDot((dy as Tensor).id, (x as Tensor).id)).id, shape)) : null,
    ],
  });
}

/** a [.., D] and b [.., D] -> [..]: the scalar product of each pair of rows, f32 (f64 for f64). */
export function rowDot(a: Tensor, b: Tensor): Tensor {
  return apply(native.rowDot(a.id, b.id), {
    name: 'rowDot',
    inputs: [a, b],
    saved: () => [a, b],
    backward: ([dy], [a, b], [wantA, wantB]) => [
      wantA ? wrap(native.mulRows((b as Tensor).id, (dy as Tensor).id)) : null,
      wantB ? wrap(native.mulRows((a as Tensor).id, (dy as Tensor).id)) : null,
    ],
  });
}

/** x [.., D] -> [..]: the 2-norm of each row, f32 (f64 for f64). */
export function rowNorms(x: Tensor): Tensor {
  return sqrt(rowDot(x, x));
}

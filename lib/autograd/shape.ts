import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { zeros } from './elementwise.js';
import { record } from './engine.js';

/**
 * The same memory with another shape of as many elements.
 * @throws ShapeError when the numbers of elements differ.
 */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const before = x.shape;
  const output = wrap(native.reshape(x.id, shape), x.version);
  record([output], {
    name: 'reshape',
    inputs: [x],
    backward: ([dy]) => [wrap(native.reshape((dy as Tensor).id, before))],
  });
  return output;
}

/**
 * Rows [start, start + length) of dimension 0, in the same memory.
 * @throws ShapeError when they do not exist.
 */
export function narrow(x: Tensor, start: number, length: number): Tensor {
  const { shape, dtype, device } = x;
  const output = wrap(native.narrow(x.id, start, length), x.version);
  record([output], {
    name: 'narrow',
    inputs: [x],
    backward: ([dy]) => {
      const dx = zeros(shape, dtype, device);
      native.copyInto((dy as Tensor).id, wrap(native.narrow(dx.id, start, length)).id);
      return [dx];
    },
  });
  return output;
}

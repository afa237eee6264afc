import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { record } from './engine.js';

function normalise(x: Tensor, logarithm: boolean): Tensor {
  const y = wrap(native.softmax(x.id, logarithm));
  recordSoftmax(y, x, logarithm);
  return y;
}

/** @internal Records that y is the softmax of x, or its logarithm. */
export function recordSoftmax(y: Tensor, x: Tensor, logarithm = false): void {
  record([y], {
    name: logarithm ? 'logSoftmax' : 'softmax',
    inputs: [x],
    saved: [y],
    backward: ([dy], [y]) => [wrap(native.softmaxBackward((y as Tensor).id, (dy as Tensor).id, logarithm))],
  });
}

/** exp(x) / sum(exp(x)) over the last dimension. */
export function softmax(x: Tensor): Tensor {
  return normalise(x, false);
}

/** x - log(sum(exp(x))) over the last dimension. */
export function logSoftmax(x: Tensor): Tensor {
  return normalise(x, true);
}

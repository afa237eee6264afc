import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

function normalise(x: Tensor, logarithm: boolean): Tensor {
  return apply(native.softmax(x.id, logarithm), {
    name: logarithm ? 'logSoftmax' : 'softmax',
    inputs: [x],
    saved: (y) => [y],
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

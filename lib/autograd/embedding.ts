import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

/**
 * Rows of weight [V, D] by ids [..] (i32 or i64) -> [.., D]. An id outside [0, V) is a KernelError where the result is
 * waited for.
 */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  const V = weight.shape[0] as number;
  return apply(native.embedding(weight.id, ids.id), {
    name: 'embedding',
    inputs: [weight],
    saved: () => [ids],
    backward: ([dy], [ids]) => [wrap(native.embeddingBackward((dy as Tensor).id, (ids as Tensor).id, V))],
  });
}

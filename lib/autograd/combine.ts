import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

/**
 * Adds up the topK rows of each token, in the order of its slots: y [N*K, D] in slot rows and gates [N, K] (f32 for f32
 * and bf16 rows, f64 for f64), or null for gates of 1, give [N, D] in y's dtype.
 * @throws ShapeError when the rows of y are no multiple of topK, or gates is not [N, K].
 */
export function combine(y: Tensor, gates: Tensor | null, topK: number): Tensor {
  return apply(native.combine(y.id, gates?.id ?? null, topK), {
    name: 'combine',
    inputs: [y, gates],
    saved: () => (gates ? [y, gates] : [y]),
    backward: ([dout], [y, gates], [wantY, wantGates]) =>
      native
        .combineBackward(
          (dout as Tensor).id,
          (y as Tensor).id,
          gates?.id ?? null,
          topK,
          wantY === true,
          wantGates === true,
        )
        .map((id) => (id === null ? null : wrap(id))),
  });
}

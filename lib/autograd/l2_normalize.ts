import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { record } from './engine.js';

/** x / max(||x||, 1e-12) over the last dimension of x [.., D]. */
export function l2Normalize(x: Tensor): Tensor {
  const [outId, normId] = native.l2Normalize(x.id);
  const out = wrap(outId);
  record([out], {
    name: 'l2Normalize',
    inputs: [x],
    saved: [x, wrap(normId)],
    backward: ([dy], [x, norm]) => [
      wrap(native.l2NormalizeBackward((x as Tensor).id, (norm as Tensor).id, (dy as Tensor).id)),
    ],
  });
  return out;
}

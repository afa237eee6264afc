import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { isGradEnabled, record } from './engine.js';

/**
 * crossEntropy(x weight^T, labels) without the logits of all rows in memory at a time: x [.., D], weight [V, D] of the
 * same dtype, labels [..] i32 or i64 with -100 ignored -> a scalar, f32 (f64 for f64). The gradients are formed along
 * with the loss, from the logits while they are there, and only scaled in backward.
 */
export function linearCrossEntropy(x: Tensor, weight: Tensor, labels: Tensor): Tensor {
  const wantX = isGradEnabled() && x.requiresGrad;
  const wantWeight = isGradEnabled() && weight.requiresGrad;
  const [lossId, ...gradientIds] = native.linearCrossEntropy(x.id, weight.id, labels.id, wantX, wantWeight);
  const loss = wrap(lossId);
  record([loss], {
    name: 'linearCrossEntropy',
    inputs: [x, weight],
    saved: gradientIds.flatMap((id) => (id === null ? [] : [wrap(id)])),
    // Nobody else holds the saved gradients, so they are scaled where they lie.
    backward: ([dloss], saved) => {
      const scaled = saved.map((gradient) => {
        native.scaleInPlace(gradient.id, (dloss as Tensor).id);
        return wrap(native.alias(gradient.id));
      });
      return [wantX ? (scaled.shift() as Tensor) : null, wantWeight ? (scaled.shift() as Tensor) : null];
    },
  });
  return loss;
}

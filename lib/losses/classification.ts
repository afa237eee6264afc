import { mean, mul, softplus, square, sub } from '../autograd/index.js';
import type { Tensor } from '../tensor.js';

/** Mean squared error over all elements; x and target of one shape. */
export function mseLoss(x: Tensor, target: Tensor): Tensor {
  return mean(square(sub(x, target)));
}

/**
 * Mean binary cross-entropy of logits against targets in [0, 1], of one shape: softplus(x) - x * target, which is
 * -target log sigmoid(x) - (1 - target) log sigmoid(-x).
 */
export function bceWithLogitsLoss(logits: Tensor, target: Tensor): Tensor {
  return mean(sub(softplus(logits), mul(logits, target)));
}

import { ValueError } from '../errors.js';
import { native } from '../native/load.js';
import type { RandomKey } from '../native/binding.js';
import { wrap, type Tensor } from '../tensor.js';
import { record } from './engine.js';
import { RoutingPlan } from './routing_plan.js';
import { recordSoftmax } from './softmax.js';

/** How many experts a token takes, and how many of those are drawn. */
export interface RouterTopKOptions {
  /** Experts per token, 1 to E. */
  k: number;
  /** How many of the k are drawn, in proportion to p + 1e-6, from the experts that are not among the largest. Default 0. */
  sample?: number;
  /** Of the draws; needed with `sample`. */
  key?: RandomKey;
}

/**
 * Chooses the k experts of largest probability for each token, lower index first on ties, and plans the rows.
 * `logits` is [N, E] f32 or f64; `probs` [N, E] is their softmax; `gates` [N, K], also in the plan, are the chosen
 * probabilities, not renormalised; the gradients of both flow to logits.
 * @throws ShapeError when k is outside 1..E; ValueError when sample is outside 0..k or has no key.
 */
export function routerTopK(
  logits: Tensor,
  { k, sample = 0, key }: RouterTopKOptions,
): { plan: RoutingPlan; gates: Tensor; probs: Tensor } {
  if (sample > 0 && !key) throw new ValueError('routerTopK: sample is above 0 without a key, expected one');
  const ids = native.route(logits.id, k, sample, key ?? [0, 0]);
  const [probs, gates, experts] = [wrap(ids[0]), wrap(ids[1]), wrap(ids[2])];
  const rows = { order: wrap(ids[3]), inverse: wrap(ids[4]), offsets: wrap(ids[5]) };
  recordSoftmax(probs, logits);
  recordGates(gates, probs, experts);
  const numExperts = logits.shape[1] as number;
  return { plan: new RoutingPlan(experts, gates, numExperts, rows), gates, probs };
}

/**
 * The plan that sends each token to given experts [N, K] i32 (recorded by an earlier forward), with the gates taken
 * from `probs` [N, E], to which their gradient flows.
 * @throws ShapeError when experts has not one row per token.
 */
export function routeTo(probs: Tensor, experts: Tensor): { plan: RoutingPlan; gates: Tensor } {
  const gates = gatherGates(probs, experts);
  return { plan: new RoutingPlan(experts, gates, probs.shape[1] as number), gates };
}

/** gates [N, K] = probs[n, experts[n, k]] of probs [N, E] f32 or f64 and experts [N, K] i32. */
export function gatherGates(probs: Tensor, experts: Tensor): Tensor {
  const gates = wrap(native.gatherGates(probs.id, experts.id));
  recordGates(gates, probs, experts);
  return gates;
}

function recordGates(gates: Tensor, probs: Tensor, experts: Tensor): void {
  const numExperts = probs.shape[1] as number;
  record([gates], {
    name: 'gatherGates',
    inputs: [probs],
    saved: [experts],
    backward: ([dgates], [experts]) => [
      wrap(native.gatherGatesBackward((dgates as Tensor).id, (experts as Tensor).id, numExperts)),
    ],
  });
}

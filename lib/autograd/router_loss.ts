import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { record } from './engine.js';
import type { RoutingPlan } from './routing_plan.js';

/** The order of `losses`. */
export const routerLossNames = ['mi', 'switch', 'z', 'concentration'] as const;
export type RouterLossName = (typeof routerLossNames)[number];

export interface RouterLoss {
  /**
   * [4] f32 or f64, in the order of `routerLossNames`; all 0 without tokens. With p_e the mean over tokens of p(e|x):
   * `mi` sum_e p_e log(p_e + 1e-8) - mean_x sum_e p(e|x) log p(e|x); `switch` E * sum_e P_e f_e, P and f the normalised
   * sums of probabilities and of choices with gate > 0 (its z term is not in it); `z` the mean squared logsumexp;
   * `concentration` the marginal entropy -sum_e p_e log p_e.
   */
  losses: Tensor;
  /** [3, E], without gradient, over the tokens that count: sum of p(e|x), number of choices with gate > 0, sum of gates. */
  stats: Tensor;
}

/**
 * The losses that shape a router's load, and the load itself. `logits` and `probs` = softmax(logits) are [N, E] f32 or
 * f64; `mask` [N] i32 leaves out tokens where it is 0. The gradient flows to logits alone, that through probs included.
 */
export function routerLoss(
  logits: Tensor,
  probs: Tensor,
  gates: Tensor,
  plan: RoutingPlan,
  mask?: Tensor | null,
): RouterLoss {
  const [lossesId, statsId] = native.routerLoss(
    logits.id,
    probs.id,
    gates.id,
    plan.experts.id,
    mask?.id ?? null,
  );
  const losses = wrap(lossesId);
  const stats = wrap(statsId);
  record([losses], {
    name: 'routerLoss',
    inputs: [logits],
    saved: mask ? [logits, probs, stats, mask] : [logits, probs, stats],
    backward: ([dout], [logits, probs, stats, mask]) => [
      wrap(
        native.routerLossBackward(
          (logits as Tensor).id,
          (probs as Tensor).id,
          mask?.id ?? null,
          (stats as Tensor).id,
          (dout as Tensor).id,
        ),
      ),
    ],
  });
  return { losses, stats };
}

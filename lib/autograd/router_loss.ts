import { native } from '../native/load.js';
import { scope } from '../scope.js';
import { tensor, wrap, type Tensor } from '../tensor.js';
import { add, affine, div, log, mul, scale, sub } from './elementwise.js';
import { noGrad, record } from './engine.js';
import { rowDot, sum } from './reduce.js';
import { narrow, reshape } from './shape.js';
import type { RoutingPlan } from './routing_plan.js';

/** The order of `losses`. */
export const routerLossNames = ['mi', 'switch', 'z', 'concentration'] as const;
/** Names of a router's losses, in the order of `losses`. */
export type RouterLossName = (typeof routerLossNames)[number];

/** A router's losses and what its experts did. */
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
 *
 * `population` [3, E], when the tokens are part of a larger batch, is the sum of the `stats` of all its parts, from other
 * passes of the same model. Then p_e, P and f are those of the larger batch, and the part's losses, weighted by its part
 * of the tokens, add up over the parts to the losses of the larger batch, as do their gradients.
 */
export function routerLoss(
  logits: Tensor,
  probs: Tensor,
  gates: Tensor,
  plan: RoutingPlan,
  mask?: Tensor | null,
  population?: Tensor | null,
): RouterLoss {
  const [lossesId, statsId] = native.routerLoss(
    logits.id,
    probs.id,
    gates.id,
    plan.experts.id,
    mask?.id ?? null,
  );
  const own = wrap(lossesId);
  const stats = wrap(statsId);
  // The kernels take means over the part's tokens, so the larger batch's sums are scaled to as many.
  const marginal = population ? scope(() => noGrad(() => scaledTo(population, stats))) : stats;
  const losses = population ? scope(() => noGrad(() => withMarginalOf(own, stats, marginal))) : own;
  record([losses], {
    name: 'routerLoss',
    inputs: [logits],
    saved: mask ? [logits, probs, marginal, mask] : [logits, probs, marginal],
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

/** Statistics scaled to as many tokens as those of a part: each token's probabilities add up to 1. */
function scaledTo(population: Tensor, part: Tensor): Tensor {
  const tokens = (statistics: Tensor): Tensor => sum(narrow(statistics, 0, 1));
  return mul(population, div(tokens(part), tokens(population)));
}

/** The losses [4] with what they owe to the marginal distribution taken from other statistics. */
function withMarginalOf(losses: Tensor, own: Tensor, other: Tensor): Tensor {
  return add(sub(losses, marginalLosses(own)), marginalLosses(other));
}

/** Above 0 in f32: p log p is 0 for p = 0. */
const TINY = 1e-37;

/** [4]: what of the losses is a function of the statistics alone. */
function marginalLosses(statistics: Tensor): Tensor {
  const { dtype, device } = statistics;
  const experts = statistics.shape[1] as number;
  const share = (row: number): Tensor => {
    const values = narrow(statistics, row, 1);
    return div(values, affine(sum(values), 1, TINY));
  };
  const [p, f] = [share(0), share(1)];
  const term = (name: RouterLossName, value: Tensor): Tensor =>
    mul(
      tensor(
        routerLossNames.map((each) => Number(each === name)),
        { dtype, device },
      ),
      reshape(value, [1]),
    );
  const mi = term('mi', rowDot(p, log(affine(p, 1, 1e-8))));
  const balance = term('switch', scale(rowDot(p, f), experts));
  const concentration = term('concentration', scale(rowDot(p, log(affine(p, 1, TINY))), -1));
  return add(add(mi, balance), concentration);
}

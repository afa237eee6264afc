import { RoutingPlan } from '../../lib/autograd/routing_plan.js';
import { createRandom } from '../../lib/data/random.js';
import { tensor } from '../../lib/tensor.js';
import { benchDevice } from './device.js';

export interface Load {
  N: number;
  E: number;
  K: number;
  /** Expert e is drawn in proportion to (e + 1)^-exponent: 0 for equal loads, 1 as a trained router may do. */
  exponent: number;
  seed?: number;
}

/** K different experts for each of N tokens: [N, K]. */
export function drawExperts({ N, E, K, exponent, seed = 1 }: Load): Int32Array {
  const random = createRandom(seed);
  const weights = Array.from({ length: E }, (_, e) => (e + 1) ** -exponent);
  const total = weights.reduce((a, b) => a + b);
  const draw = (): number => {
    let left = random.next() * total;
    for (let e = 0; e < E; e++) if ((left -= weights[e] as number) < 0) return e;
    return E - 1;
  };
  const rows = Array.from({ length: N }, () => {
    const chosen = new Set<number>();
    while (chosen.size < K) chosen.add(draw());
    return [...chosen];
  });
  return Int32Array.from(rows.flat());
}

/** A plan without gates of its own: the experts stand in for them. */
export function planOf(load: Load): RoutingPlan {
  const experts = tensor(drawExperts(load), {
    shape: [load.N, load.K],
    dtype: 'i32',
    device: benchDevice,
  });
  return new RoutingPlan(experts, experts, load.E);
}

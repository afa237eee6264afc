import type { RoutingPlan } from '../autograd/index.js';
import type { RandomKey } from '../native/binding.js';
import type { Tensor } from '../tensor.js';
import type { KeyValueCache } from './key-value-cache.js';

/** What a router did for one forward pass. */
export interface RouterOutput {
  /** The experts of every token, their gates and the order of the rows. */
  plan: RoutingPlan;
  /** [N, E] f32 (f64 in f64 models). */
  probabilities: Tensor;
  /** `[4]`: mutual information, switch, z, concentration; unweighted. */
  losses: Tensor;
  /** `[3, E]`: per expert the sum of its probabilities, the number of rows routed to it, and the sum of their gates. */
  statistics: Tensor;
  /** `[N, K]`: the norm of each chosen expert's output before its gate; null unless asked for. */
  outputNorms: Tensor | null;
  /** [N, G] ([N, D] with the gate `linear`): what the rows of the experts are multiplied with; null unless asked for. */
  features: Tensor | null;
}

/** The experts that one block's routers chose, as recorded in `out.routing`, to be imposed on another forward pass. */
export interface BlockRouting {
  /** Of the attention's router. */
  attention: RoutingPlan;
  /** Of the MLP's router. */
  mlp: RoutingPlan;
}

/** The `statistics` [3, E] of one block's routers, summed over the parts of a larger batch. */
export interface BlockStatistics {
  /** [3, E] of the attention's router. */
  attention: Tensor;
  /** [3, E] of the MLP's router. */
  mlp: Tensor;
}

/** What the blocks need to know of the pass they are in. */
export interface ForwardContext {
  readonly batchSize: number;
  /** T, the positions of this pass (without those in the cache). */
  readonly length: number;
  /** [B, Tk] i32: 0 leaves a key out. */
  readonly keyMask: Tensor | null;
  /** [B, T] i32: the first key position that a query may see. */
  readonly documentStart: Tensor | null;
  /** [B, T] i32: for rotary embedding. */
  readonly positions: Tensor | null;
  /** [N] i32: 0 leaves a token out of the routers' losses and statistics. */
  readonly routerMask: Tensor | null;
  readonly cache: KeyValueCache | null;
  readonly routing: readonly BlockRouting[] | null;
  readonly population: readonly BlockStatistics[] | null;
  /** Whether the routers compute losses and statistics. */
  readonly wantLosses: boolean;
  readonly outputAttentions: boolean;
  readonly outputExpertNorms: boolean;
  readonly outputRouterFeatures: boolean;
  /** The key of the random numbers at one place of the model: the same when a block is computed again. */
  randomKey(layer: number, place: number): RandomKey;
}

/** The tensors of a context. */
export const contextTensors = ['keyMask', 'documentStart', 'positions', 'routerMask'] as const;

/** Places that draw random numbers, for `randomKey`. */
export const places = {
  embedding: 0,
  attentionRouter: 1,
  attentionRouterDropout: 2,
  attentionOutput: 3,
  mlpRouter: 4,
  mlpRouterDropout: 5,
  mlpOutput: 6,
} as const;

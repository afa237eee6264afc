import type { Tensor } from '../tensor.js';
import { wrap } from '../tensor.js';
import { native } from '../native/load.js';

/** How the rows of a plan lie when sorted by expert. */
export interface SortedRows {
  /** [R] i32: the slot row of each sorted row; stable, so slot rows rise within an expert. */
  order: Tensor;
  /** [R] i32: the sorted row of each slot row. */
  inverse: Tensor;
  /** [E + 1] i32: the first sorted row of each expert, then R. */
  offsets: Tensor;
}

function sortRows(experts: Tensor, numExperts: number): SortedRows {
  const [order, inverse, offsets] = native.routePlan(experts.id, numExperts);
  return { order: wrap(order), inverse: wrap(inverse), offsets: wrap(offsets) };
}

/**
 * Which experts each of N tokens goes to, and how its R = N*K routed rows lie when sorted by expert. All on the
 * device. A slot row n*K + k is choice k of token n; a sorted row s belongs to expert e with
 * offsets[e] <= s < offsets[e + 1].
 */
export class RoutingPlan {
  /** [N, K] i32: the experts of each token, by falling probability. */
  readonly experts: Tensor;
  /** [N, K] f32 (f64 in f64 models): their probabilities, not renormalised. */
  readonly gates: Tensor;
  /** [R] i32: the slot row of each sorted row; stable, so slot rows rise within an expert. */
  readonly order: Tensor;
  /** [R] i32: the sorted row of each slot row. */
  readonly inverse: Tensor;
  /** [E + 1] i32: the first sorted row of each expert, then R. */
  readonly offsets: Tensor;
  /** K, experts of a token. */
  readonly topK: number;
  /** E, experts in all. */
  readonly numExperts: number;

  /**
   * Sorts the rows of `experts` [N, K] by expert, unless `rows` says how they lie. An expert outside [0, numExperts)
   * makes the plan, and what is computed from it, fail with a KernelError.
   * @throws ShapeError, DTypeError when experts is not [N, K] i32.
   */
  constructor(experts: Tensor, gates: Tensor, numExperts: number, rows = sortRows(experts, numExperts)) {
    this.experts = experts;
    this.gates = gates;
    this.order = rows.order;
    this.inverse = rows.inverse;
    this.offsets = rows.offsets;
    this.topK = experts.shape[1] as number;
    this.numExperts = numExperts;
  }
}

import { add, rowDot, reshape } from '../autograd/index.js';
import { tensor, type Tensor } from '../tensor.js';

/** The losses of all 2L routers, unweighted, each a scalar. */
export interface RouterLosses {
  /** Balancing: `mi` or `switch`, as the config says. */
  auxLoss: Tensor;
  /** Entropy of the mean distribution over experts: minimised to settle on few. */
  concentrationLoss: Tensor;
  /** Mean squared logsumexp of the router logits. */
  zLoss: Tensor;
}

/** How much each counts in `loss`, besides the cross-entropy. */
export interface LossWeights {
  /** Of balancing. */
  aux: number;
  /** Of the entropy of the mean distribution over experts. */
  concentration: number;
  /** Of the mean squared logsumexp of router logits. */
  z: number;
}

/** Coefficients of the router's loss vector {mutual information, switch, z, concentration}. */
const coefficients = {
  mi: [1, 0, 0, 0],
  // The reference adds a tenth of z to the loss of Switch Transformers.
  switch: [0, 1, 0.1, 0],
  z: [0, 0, 1, 0],
  concentration: [0, 0, 0, 1],
} as const;

/** Sums the vectors [4] of all routers in order and takes them apart. */
export function sumRouterLosses(routers: readonly Tensor[], auxLossType: 'mi' | 'switch'): RouterLosses {
  const total = reshape(
    routers.reduce((sum, losses) => add(sum, losses)),
    [1, 4],
  );
  const pick = (kind: keyof typeof coefficients): Tensor =>
    reshape(
      rowDot(total, tensor([[...coefficients[kind]]], { dtype: total.dtype, device: total.device })),
      [],
    );
  return { auxLoss: pick(auxLossType), concentrationLoss: pick('concentration'), zLoss: pick('z') };
}

import { backwardFrom } from '../../lib/autograd/engine.js';
import { tensor, type Tensor } from '../../lib/tensor.js';

/** Runs backward from every output with its weight as the incoming gradient: that of sum(output * weight). */
export function backwardWeighted(
  outputs: readonly Tensor[],
  weights: readonly (Float64Array | null)[],
): void {
  const roots = outputs.filter((output, i) => weights[i] && output.node);
  const gradients = outputs.flatMap((output, i) => {
    const weight = weights[i];
    return weight && output.node
      ? [tensor(weight, { dtype: output.dtype, shape: output.shape, device: output.device })]
      : [];
  });
  backwardFrom(roots, gradients);
}

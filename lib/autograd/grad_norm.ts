import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';

const ids = (tensors: readonly Tensor[]): number[] => tensors.map(({ id }) => id);

/**
 * The 2-norm over all elements of all tensors: `norm` [1] f32 (f64 if a tensor is f64), and `finite` [1] i32, 1 when
 * that is a finite number and else 0. Not differentiable.
 * @throws ValueError without tensors.
 */
export function gradNorm(tensors: readonly Tensor[]): { norm: Tensor; finite: Tensor } {
  const [norm, finite] = native.gradNorm(ids(tensors));
  return { norm: wrap(norm), finite: wrap(finite) };
}

/**
 * Multiplies every tensor by min(1, maxNorm / (norm + 1e-6)), in place; changes nothing when norm [1] is not finite.
 * @throws ValueError unless maxNorm is above 0.
 */
export function clipGradients(tensors: readonly Tensor[], norm: Tensor, maxNorm: number): void {
  native.clipGradients(ids(tensors), norm.id, maxNorm);
  for (const tensor of tensors) tensor.version.count++;
}

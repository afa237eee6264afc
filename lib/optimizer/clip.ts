import { clipGradients, gradNorm } from '../autograd/grad_norm.js';
import { tensor, type Tensor } from '../tensor.js';

/** For gradients whose norm was taken: the flag that it was finite, good until the gradient changes again. */
const checked = new WeakMap<Tensor, { finite: Tensor; version: number }>();

/**
 * Scales the gradients of `parameters` in place by min(1, maxNorm / (norm + 1e-6)), with norm the 2-norm over all of
 * them together, and returns that norm [1], taken before scaling. Only enqueues. With a NaN or an infinity among the
 * gradients, they stay as they are and `AdamW.step()` changes nothing; the norm tells. Infinity as `maxNorm` only
 * measures. Without any gradient the norm is 0.
 * @throws ValueError unless maxNorm is above 0.
 */
export function clipGradNorm(parameters: Iterable<Tensor>, maxNorm: number): Tensor {
  const gradients = gradientsOf(parameters);
  if (gradients.length === 0) return tensor([0]);
  const { norm, finite } = gradNorm(gradients);
  clipGradients(gradients, norm, maxNorm);
  for (const gradient of gradients) checked.set(gradient, { finite, version: gradient.version.count });
  return norm;
}

/** @internal [1] i32, 0 when a NaN or an infinity is among the gradients: the flag of clipGradNorm, if it saw all these. */
export function finiteFlag(gradients: readonly Tensor[]): Tensor {
  const flags = new Set(
    gradients.map((gradient) => {
      const check = checked.get(gradient);
      return check?.version === gradient.version.count ? check.finite : null;
    }),
  );
  const [flag] = flags;
  return flags.size === 1 && flag && !flag.isDisposed ? flag : gradNorm(gradients).finite;
}

function gradientsOf(parameters: Iterable<Tensor>): Tensor[] {
  return [...new Set(parameters)].flatMap(({ grad }) => (grad ? [grad] : []));
}

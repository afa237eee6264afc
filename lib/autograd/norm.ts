import { normKinds } from '../native/binding.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { record } from './engine.js';

function norm(
  name: (typeof normKinds)[number],
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  eps: number,
): Tensor {
  const kind = normKinds.indexOf(name);
  const [outId, meanId, rstdId] = native.norm(kind, x.id, weight.id, bias?.id ?? null, eps);
  const out = wrap(outId);
  const rstd = wrap(rstdId);
  const mean = meanId === null ? null : wrap(meanId);
  record([out], {
    name,
    inputs: [x, weight, bias],
    saved: mean ? [x, weight, rstd, mean] : [x, weight, rstd],
    backward: ([dy], [x, weight, rstd, mean]) =>
      native
        .normBackward(
          kind,
          (x as Tensor).id,
          (weight as Tensor).id,
          mean?.id ?? null,
          (rstd as Tensor).id,
          (dy as Tensor).id,
          bias !== null,
        )
        .map((id) => (id === null ? null : wrap(id))),
  });
  return out;
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension: x [.., D], weight and bias [D], one dtype.
 * The variance is that of the row, not the unbiased estimate.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor | null, eps = 1e-5): Tensor {
  return norm('layerNorm', x, weight, bias, eps);
}

/** x / sqrt(mean(x^2) + eps) * weight over the last dimension: x [.., D], weight [D], one dtype. */
export function rmsNorm(x: Tensor, weight: Tensor, eps = 1e-5): Tensor {
  return norm('rmsNorm', x, weight, null, eps);
}

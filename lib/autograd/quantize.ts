import { AutogradError } from '../errors.js';
import { dtypes, rowMaps, unaryKinds } from '../native/binding.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { isGradEnabled } from './engine.js';
import type { GroupedGemmOptions, LinearOptions } from './grouped_gemm.js';
import type { RoutingPlan } from './routing_plan.js';

/** A weight in 8 bits: values [.., out, in] i8 times scales [.., out, in / groupSize] f32. */
export interface QuantizedWeight {
  /** i8, the shape of the weight with inputs last. */
  values: Tensor;
  /** f32, one for each group of inputs. */
  scales: Tensor;
}

/** How `quantize` lays out its groups. */
export interface QuantizeOptions {
  /** Neighbouring inputs that share a scale: 32, 64 or 128. */
  groupSize: number;
  /** Whether w is [.., out, in], as a Linear's, and not [.., in, out], as the experts'. */
  transposed: boolean;
}

/**
 * w = value * scale to the nearest, scale = the group's largest magnitude / 127.
 * @throws ShapeError when the input width is no multiple of groupSize, ValueError for another group size.
 */
export function quantizeWeight(w: Tensor, { groupSize, transposed }: QuantizeOptions): QuantizedWeight {
  const [values, scales] = native.quantize(w.id, groupSize, transposed);
  return { values: wrap(values), scales: wrap(scales) };
}

function requireNoGradient(op: string, x: Tensor): void {
  if (!isGradEnabled() || !x.requiresGrad) return;
  throw new AutogradError(
    `${op}: 8-bit weights pass no gradient on, expected an input without one, or noGrad`,
  );
}

const activationIndex = (activation: LinearOptions['activation']): number | null =>
  activation ? unaryKinds.indexOf(activation) : null;

/**
 * As `linear` without bias: x [.., in] f32 or bf16 -> [.., out]. Forward only.
 * @throws AutogradError when a gradient with respect to x is wanted, ShapeError, DTypeError.
 */
export function quantizedLinear(
  x: Tensor,
  { values, scales }: QuantizedWeight,
  { activation, outputDType }: LinearOptions = {},
): Tensor {
  requireNoGradient('quantizedLinear', x);
  const [kind, output] = [activationIndex(activation), dtypes.indexOf(outputDType ?? x.dtype)];
  return wrap(native.quantizedGemm(x.id, values.id, scales.id, null, null, 1, 0, 0, kind, output));
}

/**
 * As `groupedGemm`: x [R, in] ([N, in] with rows by token) f32 or bf16 -> [R, out]. Forward only.
 * @throws AutogradError when a gradient with respect to x is wanted, ShapeError, DTypeError.
 */
export function quantizedGroupedGemm(
  x: Tensor,
  { values, scales }: QuantizedWeight,
  plan: RoutingPlan,
  { inputRows, outputRows, activation }: GroupedGemmOptions,
): Tensor {
  requireNoGradient('quantizedGroupedGemm', x);
  return wrap(
    native.quantizedGemm(
      x.id,
      values.id,
      scales.id,
      plan.order.id,
      plan.offsets.id,
      plan.topK,
      rowMaps.indexOf(inputRows),
      rowMaps.indexOf(outputRows),
      activationIndex(activation),
      dtypes.indexOf(x.dtype),
    ),
  );
}

import {
  add,
  expertMlp,
  gelu,
  geluNew,
  groupedGemm,
  linear,
  noGrad,
  quantizedGroupedGemm,
  quantizedLinear,
  quantizeWeight,
  relu,
  silu,
  type Activation,
  type GroupedGemmOptions,
  type LinearOptions,
  type QuantizedWeight,
  type QuantizeOptions,
  type RoutingPlan,
} from '../autograd/index.js';
import { keep } from '../scope.js';
import type { Tensor } from '../tensor.js';

const activations = { gelu, geluNew, silu, relu };

/** The 8-bit form of the parameters that were replaced by one. */
const quantized = new WeakMap<Tensor, QuantizedWeight>();

/** Replaces a parameter by its 8-bit form and frees it. */
export function quantizeParameter(weight: Tensor, options: QuantizeOptions): void {
  const form = noGrad(() => quantizeWeight(weight, options));
  keep(form.values);
  keep(form.scales);
  quantized.set(weight, form);
  weight.dispose();
}

export function isQuantized(weight: Tensor): boolean {
  return quantized.has(weight);
}

/** Frees a parameter in either form. */
export function disposeParameter(parameter: Tensor): void {
  parameter.dispose();
  const form = quantized.get(parameter);
  form?.values.dispose();
  form?.scales.dispose();
}

/** `linear` with a weight in either form. */
export function multiply(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: LinearOptions = {},
): Tensor {
  const form = quantized.get(weight);
  if (!form) return linear(x, weight, bias, options);
  if (!bias) return quantizedLinear(x, form, options);
  const { activation, ...rest } = options;
  const y = add(quantizedLinear(x, form, rest), bias);
  return activation ? activations[activation](y) : y;
}

/** `groupedGemm` with weights in either form. */
export function multiplyRows(x: Tensor, w: Tensor, plan: RoutingPlan, options: GroupedGemmOptions): Tensor {
  const form = quantized.get(w);
  return form ? quantizedGroupedGemm(x, form, plan, options) : groupedGemm(x, w, plan, options);
}

/** `expertMlp` with weights in either form. */
export function multiplyMlp(
  x: Tensor,
  w1: Tensor,
  w2: Tensor,
  plan: RoutingPlan,
  activation: Activation,
): Tensor {
  if (!quantized.has(w1)) return expertMlp(x, w1, w2, plan, activation);
  const hidden = multiplyRows(x, w1, plan, { inputRows: 'token', outputRows: 'sorted', activation });
  return multiplyRows(hidden, w2, plan, { inputRows: 'sorted', outputRows: 'slot' });
}

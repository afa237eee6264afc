import { DTypeError, ShapeError, ValueError } from '../errors.js';
import { quantizeParameter } from '../nn/quantized.js';
import type { Module } from '../nn/module.js';
import type { Tensor } from '../tensor.js';

/** How a model is quantised. */
export interface ModelQuantizeOptions {
  /** Neighbouring inputs that share a scale: 32, 64 (default) or 128. */
  groupSize?: number;
}

/** Experts [E, in, out], projections and LM head [out, in]; embedding, norms and routers stay as they are. */
function isProjection(name: string, { shape }: Tensor): boolean {
  if (name.includes('.gate.') || /(^|\.)(wte|score)\.weight$/.test(name)) return false;
  return shape.length === 3 || shape.length === 2;
}

/**
 * Replaces the weights of experts, projections and LM head by 8-bit integers with a scale per group of inputs, in place.
 * The model then only runs forward: its parameters want no gradients, and it cannot be saved.
 * @returns the names of the parameters that were replaced.
 * @throws ShapeError when a weight's input width is no multiple of the group, ValueError for another group size or a
 * model that is quantized already, DTypeError for f64. Nothing is changed then.
 */
export function quantize(model: Module, { groupSize = 64 }: ModelQuantizeOptions = {}): string[] {
  if (![32, 64, 128].includes(groupSize)) {
    throw new ValueError(`quantize: groupSize is ${groupSize}, expected 32, 64 or 128`);
  }
  const chosen = [...model.namedParameters()].filter(([name, weight]) => isProjection(name, weight));
  for (const [name, weight] of chosen) {
    if (weight.isDisposed) throw new ValueError(`quantize: ${name} is disposed or quantized already`);
    if (weight.dtype === 'f64') throw new DTypeError(`quantize: ${name} has dtype f64, expected f32 or bf16`);
    const { shape } = weight;
    const width = shape[1] as number;
    if (width % groupSize !== 0) {
      throw new ShapeError(
        `quantize: ${name} has shape [${shape.join(', ')}], expected an input width that is a multiple of ${groupSize}`,
      );
    }
  }
  for (const parameter of model.parameters()) {
    parameter.requiresGrad = false;
    parameter.grad?.dispose();
    parameter.grad = null;
  }
  for (const [, weight] of chosen)
    quantizeParameter(weight, { groupSize, transposed: weight.shape.length === 2 });
  return chosen.map(([name]) => name);
}

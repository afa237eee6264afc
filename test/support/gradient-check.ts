import type { ExecutionContext } from 'ava';
import { copyInto, noGrad } from '../../lib/autograd/index.js';
import type { Module } from '../../lib/nn/module.js';
import { scope } from '../../lib/scope.js';
import { tensor, type Tensor } from '../../lib/tensor.js';
import { numbers } from './compare.js';
import { normals } from './random.js';

/** Small enough that no token changes its experts, large enough that rounding leaves ten digits. */
const STEP = 1e-5;
/** Below this derivative, the rounding of the loss is all that differences see. */
const FLOOR = 1e-4;

/** Moves all parameters away from their initial values, so that no part of a model is close to linear. */
export async function shake(model: Module, scale = 0.3, seed = 1): Promise<void> {
  let stream = seed * 1000;
  for (const parameter of model.parameters()) {
    const before = await numbers(parameter);
    const noise = normals(stream++, before.length, scale);
    set(
      parameter,
      before.map((x, i) => x + (noise[i] as number)),
    );
  }
}

function set(parameter: Tensor, values: Float64Array): void {
  noGrad(() => {
    scope(() => {
      const { dtype, shape, device } = parameter;
      copyInto(parameter, tensor(values, { dtype, shape, device }));
    });
  });
}

/**
 * Checks the gradient of every parameter of an f64 model: its product with random directions, one over the whole
 * tensor and some over a few elements, against central differences of the loss.
 */
export async function checkGradients(
  t: ExecutionContext,
  model: Module,
  loss: () => Tensor,
  tolerance = 1e-6,
): Promise<void> {
  model.zeroGrad();
  scope(() => {
    loss().backward();
  });
  const evaluate = async (): Promise<number> => {
    const value = scope(() => noGrad(loss));
    const number = await value.item();
    value.dispose();
    return number;
  };
  let seed = 7;
  for (const [name, parameter] of model.namedParameters()) {
    const gradient = parameter.grad ? await numbers(parameter.grad) : new Float64Array(parameter.numel);
    const values = await numbers(parameter);
    for (const direction of directions(values.length, seed++)) {
      set(
        parameter,
        values.map((x, i) => x + STEP * (direction[i] as number)),
      );
      const above = await evaluate();
      set(
        parameter,
        values.map((x, i) => x - STEP * (direction[i] as number)),
      );
      const below = await evaluate();
      const numeric = (above - below) / (2 * STEP);
      const analytic = gradient.reduce((sum, g, i) => sum + g * (direction[i] as number), 0);
      const size = gradient.reduce((sum, g, i) => sum + Math.abs(g * (direction[i] as number)), 0);
      const error = Math.abs(numeric - analytic) / Math.max(size, FLOOR);
      t.true(error < tolerance, `${name}: ${analytic}, differences say ${numeric} (relative error ${error})`);
    }
    set(parameter, values);
  }
}

/** Vectors of norm 1. */
function directions(length: number, seed: number): Float64Array[] {
  const whole = normals(seed, length);
  const parts = [0, 1].map((part) => whole.map((x, i) => ((i * 7 + seed) % 5 === part ? x : 0)));
  return [whole, ...parts].flatMap((direction) => {
    const norm = Math.sqrt(direction.reduce((sum, x) => sum + x * x, 0));
    return norm === 0 ? [] : [direction.map((x) => x / norm)];
  });
}

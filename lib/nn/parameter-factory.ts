import { fill, randomNormal, randomUniform } from '../autograd/index.js';
import type { Device, FloatDType } from '../native/binding.js';
import { empty, type Tensor } from '../tensor.js';

/** What the parameters of a model have in common. */
export interface FactoryOptions {
  /** Of every parameter. */
  dtype: FloatDType;
  /** Where they are. */
  device: Device;
  /** Same seed, same parameters. Null leaves them uninitialised, for a checkpoint to fill. */
  seed: number | null;
}

/** Makes the parameters of a model, in the order in which it asks for them: each draws from a random stream of its own. */
export class ParameterFactory {
  /** Of every parameter. */
  readonly dtype: FloatDType;
  /** Where they are. */
  readonly device: Device;
  readonly #seed: number | null;
  #stream = 0;

  /** Takes what all parameters have in common. */
  constructor({ dtype, device, seed }: FactoryOptions) {
    this.dtype = dtype;
    this.device = device;
    this.#seed = seed;
  }

  /** N(0, std^2). */
  normal(shape: readonly number[], std: number): Tensor {
    return this.#make(shape, (key) => randomNormal(shape, key, { ...this.#kind, standardDeviation: std }));
  }

  /** U(-bound, bound). */
  uniform(shape: readonly number[], bound: number): Tensor {
    return this.#make(shape, (key) => randomUniform(shape, key, { ...this.#kind, low: -bound, high: bound }));
  }

  /** `value` everywhere. */
  constant(shape: readonly number[], value: number): Tensor {
    return this.#make(shape, () => {
      const parameter = empty(shape, this.dtype, this.device);
      fill(parameter, value);
      return parameter;
    });
  }

  get #kind(): { dtype: FloatDType; device: Device } {
    return { dtype: this.dtype, device: this.device };
  }

  #make(shape: readonly number[], initialise: (key: [number, number]) => Tensor): Tensor {
    const parameter =
      this.#seed === null ? empty(shape, this.dtype, this.device) : initialise([this.#seed, this.#stream++]);
    parameter.requiresGrad = true;
    return parameter;
  }
}

import { embedding, layerNorm, type LinearOptions } from '../autograd/index.js';
import type { Tensor } from '../tensor.js';
import { Module } from './module.js';
import type { ParameterFactory } from './parameter-factory.js';
import { multiply } from './quantized.js';

/** y = x W^T + b with W [out, in], initialised from N(0, std^2), b from 0. */
export class Linear extends Module {
  /** [out, in] */
  readonly weight: Tensor;
  /** [out] */
  readonly bias: Tensor | null;

  /** `std` is the standard deviation of the initial weights; `bias` whether there is one. */
  constructor(
    make: ParameterFactory,
    inFeatures: number,
    outFeatures: number,
    options: { std: number; bias: boolean },
  ) {
    super();
    this.weight = this.parameter('weight', make.normal([outFeatures, inFeatures], options.std));
    this.bias = options.bias ? this.parameter('bias', make.constant([outFeatures], 0)) : null;
  }

  /** x [..., in] -> [..., out], with an activation applied to it when one is named. */
  forward(x: Tensor, activation?: LinearOptions['activation']): Tensor {
    return multiply(x, this.weight, this.bias, activation ? { activation } : {});
  }
}

/** A table [V, D], initialised from N(0, std^2). */
export class Embedding extends Module {
  /** [V, D] */
  readonly weight: Tensor;

  /** `std` is the standard deviation of the initial values. */
  constructor(make: ParameterFactory, vocabSize: number, width: number, std: number) {
    super();
    this.weight = this.parameter('weight', make.normal([vocabSize, width], std));
  }

  /** ids [...] i32 or i64 -> [..., D]. */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}

/** (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension. */
export class LayerNorm extends Module {
  /** [D], initially 1. */
  readonly weight: Tensor;
  /** [D], initially 0. */
  readonly bias: Tensor;
  readonly #eps: number;

  /** `eps` is added to the variance. */
  constructor(make: ParameterFactory, width: number, eps: number) {
    super();
    this.weight = this.parameter('weight', make.constant([width], 1));
    this.bias = this.parameter('bias', make.constant([width], 0));
    this.#eps = eps;
  }

  /** x [..., D] -> the same shape. */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.#eps);
  }
}

import type { Tensor } from '../tensor.js';

/** A tree of named parameters, with the names of the checkpoint. */
export abstract class Module {
  readonly #parameters = new Map<string, Tensor>();
  readonly #children = new Map<string, Module>();
  #training = false;

  /** Whether dropout and sampled top-k are on. New modules are in evaluation mode. */
  get training(): boolean {
    return this.#training;
  }

  /** Registers a parameter; its full name is that of the enclosing modules and `name`, joined by dots. */
  protected parameter(name: string, parameter: Tensor): Tensor {
    this.#parameters.set(name, parameter);
    return parameter;
  }

  /** Registers a part; `name` may itself have dots. */
  protected child<M extends Module>(name: string, module: M): M {
    this.#children.set(name, module);
    return module;
  }

  *namedParameters(prefix = ''): IterableIterator<[string, Tensor]> {
    for (const [name, parameter] of this.#parameters) yield [prefix + name, parameter];
    for (const [name, module] of this.#children) yield* module.namedParameters(`${prefix}${name}.`);
  }

  *parameters(): IterableIterator<Tensor> {
    for (const [, parameter] of this.namedParameters()) yield parameter;
  }

  /** Switches dropout and sampled top-k on (or off). */
  train(mode = true): this {
    this.#training = mode;
    for (const module of this.#children.values()) module.train(mode);
    return this;
  }

  /** Switches dropout and sampled top-k off. */
  eval(): this {
    return this.train(false);
  }

  /** Frees the gradients of all parameters. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose();
      parameter.grad = null;
    }
  }

  /** Frees all parameters and their gradients; the module cannot be used any more. */
  dispose(): void {
    this.zeroGrad();
    for (const parameter of this.parameters()) parameter.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

import { ShapeError, ValueError } from '../errors.js';
import type { RowRange, Tensor } from '../tensor.js';
import { disposeParameter } from './quantized.js';

/**
 * Parameters by name: a full name, a pattern in which `*` stands for anything without a dot and `**` for anything, or a
 * regular expression. With `rows`, only the rows [first, end) of dimension 0 of those parameters.
 */
export type TrainablePattern = string | RegExp | { name: string | RegExp; rows: RowRange };

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

  /** Parameters with the names that they have in a checkpoint, in its order. */
  *namedParameters(prefix = ''): IterableIterator<[string, Tensor]> {
    for (const [name, parameter] of this.#parameters) yield [prefix + name, parameter];
    for (const [name, module] of this.#children) yield* module.namedParameters(`${prefix}${name}.`);
  }

  /** Parameters in the order of `namedParameters`. */
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

  /**
   * Trains the parameters (or rows of parameters) that match one of the patterns, and freezes all others: they get no
   * gradient, and an optimizer leaves them as they are to the bit. Call it before the optimizer is made.
   * `trainable('**')` trains everything again.
   * @returns the names of the parameters that are trained.
   * @throws ValueError for a pattern that matches nothing, ShapeError for rows that do not exist; nothing changes then.
   */
  trainable(...patterns: TrainablePattern[]): string[] {
    const chosen = new Map<Tensor, RowRange | null>();
    const names: string[] = [];
    const all = [...this.namedParameters()];
    for (const pattern of patterns) {
      const { name: wanted, rows } = isWhole(pattern) ? { name: pattern, rows: null } : pattern;
      const found = all.filter(([name]) => matcher(wanted).test(name));
      if (found.length === 0) throw new ValueError(`trainable: no parameter matches ${String(wanted)}`);
      for (const [name, parameter] of found) {
        if (rows) requireRows(name, parameter, rows);
        if (!chosen.has(parameter)) names.push(name);
        chosen.set(parameter, rows);
      }
    }
    for (const [, parameter] of all) {
      parameter.requiresGrad = chosen.has(parameter);
      parameter.trainableRows = chosen.get(parameter) ?? null;
      if (parameter.requiresGrad && !parameter.trainableRows) continue;
      parameter.grad?.dispose();
      parameter.grad = null;
    }
    return names;
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
    for (const parameter of this.parameters()) disposeParameter(parameter);
  }

  /** As `dispose`, at the end of a `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function isWhole(pattern: TrainablePattern): pattern is string | RegExp {
  return typeof pattern === 'string' || pattern instanceof RegExp;
}

function matcher(wanted: string | RegExp): RegExp {
  if (wanted instanceof RegExp) return new RegExp(wanted.source, wanted.flags.replace(/[gy]/g, ''));
  const parts = wanted.split(/(\*{1,2})/).map((part) => {
    if (part === '**') return '.*';
    return part === '*' ? '[^.]*' : part.replace(/[.+?^${}()|[\]\\]/g, '\\$&');
  });
  return new RegExp(`^${parts.join('')}$`);
}

function requireRows(name: string, { shape }: Tensor, [first, end]: RowRange): void {
  const count = shape[0] ?? 0;
  if (Number.isInteger(first) && Number.isInteger(end) && first >= 0 && first < end && end <= count) return;
  throw new ShapeError(
    `trainable: rows ${first} to ${end} of ${name} do not exist, it has shape [${shape.join(', ')}]`,
  );
}

import { adamWStep, type AdamWEntry } from '../autograd/adamw.js';
import { cast, zeros } from '../autograd/elementwise.js';
import { noGrad } from '../autograd/engine.js';
import { narrow } from '../autograd/shape.js';
import { CheckpointError, ValueError } from '../errors.js';
import { keep, scope } from '../scope.js';
import type { DType, RowRange, Tensor } from '../tensor.js';
import { finiteFlag } from './clip.js';

export interface AdamWOptions {
  /** Learning rate, at least 0. Default 1e-3. */
  lr?: number;
  /** Decay of the running means of the gradient and of its square, in [0, 1). Default 0.9, 0.999. */
  betas?: readonly [number, number];
  /** Added to the root of the mean square, at least 0. Default 1e-8. */
  eps?: number;
  /** Decoupled: a step multiplies parameters by 1 - lr * weightDecay. At least 0. Default 0.01. */
  weightDecay?: number;
}

/** Parameters, plain or with their names, with options of their own; what is missing is that of the optimizer. */
export interface AdamWGroupOptions extends AdamWOptions {
  /** [name, parameter] pairs give their names to `namedState`. */
  params: Iterable<Tensor | readonly [name: string, parameter: Tensor]>;
}

/** A group in use. All but `params` may be changed between steps. */
export interface AdamWGroup {
  /** The parameters of this group. */
  readonly params: readonly Tensor[];
  /** Learning rate. */
  lr: number;
  /** Decay of the running means. */
  betas: readonly [number, number];
  /** Added to the root of the mean square. */
  eps: number;
  /** Decoupled weight decay. */
  weightDecay: number;
}

type State = Pick<AdamWEntry, 'm' | 'v' | 'master' | 'step'>;
type Given = Tensor | readonly [string, Tensor] | AdamWGroupOptions;

const defaults = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 } as const;

/**
 * AdamW as in PyTorch: decoupled weight decay, bias-corrected means. Takes parameters, [name, parameter] pairs or groups
 * with options of their own. Means are f32 (f64 for f64 parameters); bf16 parameters have an f32 master copy,
 * made at the first step, from which they are rounded. Of a parameter with `trainableRows`, only those rows have state
 * and are changed, by weight decay neither.
 */
export class AdamW {
  /** The groups in use, in the order given; their options may be changed between steps. */
  readonly groups: readonly AdamWGroup[];
  readonly #names = new Map<Tensor, string>();
  readonly #state = new Map<Tensor, State>();
  /** Of the parameters when they were given; their state has the shape of these rows. */
  readonly #rows = new Map<Tensor, RowRange | null>();

  /** @throws ValueError for an option out of range, no parameters, one given twice, or one that is not a leaf. */
  constructor(params: Iterable<Given>, options: AdamWOptions = {}) {
    const given = [...params];
    const groups = given.every(isGroup) ? given : [{ params: given as AdamWGroupOptions['params'] }];
    this.groups = groups.map(({ params, ...own }) => {
      const group = { ...defaults, ...options, ...own, params: [...params].map((item) => this.#add(item)) };
      requireFactors(group);
      return group;
    });
    if (this.#names.size === 0) throw new ValueError('AdamW: no parameters were given');
  }

  /** The learning rate of the first group. Setting it sets that of every group. */
  get lr(): number {
    return (this.groups[0] as AdamWGroup).lr;
  }

  /** @throws ValueError unless the rate is a finite number of at least 0. */
  set lr(value: number) {
    requireNumber('lr', value, value >= 0, 'at least 0');
    for (const group of this.groups) group.lr = value;
  }

  /**
   * Updates every parameter that has a gradient. Only enqueues. When a gradient holds a NaN or an infinity, nothing
   * changes, the count of steps included; `finite` [1] i32, when given, decides that instead (0: nothing changes).
   * @throws ValueError when an option of a group is out of range, or other rows of a parameter are trained than when it
   *   was given; nothing changes then.
   */
  step(finite?: Tensor): void {
    this.groups.forEach(requireFactors);
    scope(() => {
      const entries = this.groups.map(({ params }) =>
        params.flatMap((parameter): AdamWEntry[] => {
          const { grad } = parameter;
          if (!grad) return [];
          const rows = this.#trainedRows(parameter);
          const state = this.#stateOf(parameter);
          return [{ parameter: partOf(parameter, rows), gradient: partOf(grad, rows), ...state }];
        }),
      );
      const gradients = this.groups.flatMap(({ params }) => params.flatMap(({ grad }) => grad ?? []));
      if (gradients.length === 0) return;
      const flag = finite ?? finiteFlag(gradients);
      this.groups.forEach((group, i) => {
        const own = entries[i] as AdamWEntry[];
        if (own.length > 0) adamWStep(own, group, flag);
      });
    });
  }

  /** Drops the gradients. */
  zeroGrad(): void {
    for (const parameter of this.#names.keys()) {
      parameter.grad?.dispose();
      parameter.grad = null;
    }
  }

  /**
   * The state of every parameter that requires a gradient or has had one: `<name>.m` and `<name>.v` in its shape,
   * `<name>.master` for bf16, `<name>.step` [1] i32, the number of updates done. The name is the given one, else the
   * parameter's number. The tensors are those in use: steps change them.
   */
  *namedState(): IterableIterator<[name: string, tensor: Tensor]> {
    for (const [parameter, name] of this.#names) {
      if (!parameter.requiresGrad && !this.#state.has(parameter)) continue;
      const { m, v, master, step } = this.#stateOf(parameter);
      yield [`${name}.m`, m];
      yield [`${name}.v`, v];
      if (master) yield [`${name}.master`, master];
      yield [`${name}.step`, step];
    }
  }

  /**
   * Takes over what `namedState()` of an optimizer over the same parameters gave; the tensors then belong to this one.
   * Parameters of which nothing is given start anew.
   * @throws CheckpointError when a name is unknown or missing, or a shape or dtype differs; nothing changes then.
   */
  loadState(state: Iterable<readonly [name: string, tensor: Tensor]>): void {
    const given = new Map(state);
    const loaded = new Map<Tensor, State>();
    for (const [parameter, name] of this.#names) {
      const own = takeState(parameter, name, given);
      if (own) loaded.set(parameter, own);
    }
    const [unknown] = given.keys();
    if (unknown !== undefined) {
      throw new CheckpointError(
        `AdamW.loadState: '${unknown}' belongs to none of the ${this.#names.size} parameters`,
      );
    }
    const inUse = new Set([...loaded.values()].flatMap(tensorsOf));
    for (const old of [...this.#state.values()].flatMap(tensorsOf)) if (!inUse.has(old)) old.dispose();
    this.#state.clear();
    for (const [parameter, own] of loaded) this.#state.set(parameter, keepState(own));
  }

  #add(item: Tensor | readonly [string, Tensor]): Tensor {
    const [name, parameter] = isPair(item) ? item : [String(this.#names.size), item];
    if (this.#names.has(parameter)) throw new ValueError(`AdamW: parameter '${name}' is given twice`);
    if (parameter.node) {
      throw new ValueError(`AdamW: parameter '${name}' was computed from others, expected a leaf`);
    }
    if (!['f64', 'f32', 'bf16'].includes(parameter.dtype)) {
      throw new ValueError(
        `AdamW: parameter '${name}' has dtype ${parameter.dtype}, expected f64, f32 or bf16`,
      );
    }
    this.#names.set(parameter, name);
    this.#rows.set(parameter, parameter.trainableRows);
    return parameter;
  }

  #trainedRows(parameter: Tensor): RowRange | null {
    const rows = this.#rows.get(parameter) ?? null;
    const now = parameter.trainableRows;
    if (now?.[0] !== rows?.[0] || now?.[1] !== rows?.[1]) {
      const [before, after] = [rows, now].map((range) => (range ? `rows ${range.join(' to ')}` : 'all rows'));
      throw new ValueError(
        `AdamW: of parameter '${this.#names.get(parameter)}' ${after} are trained, it was given with ${before}`,
      );
    }
    return rows;
  }

  #stateOf(parameter: Tensor): State {
    let state = this.#state.get(parameter);
    if (!state) {
      const { device } = parameter;
      const { m, v, master, step } = stateDTypes(parameter);
      const rows = this.#trainedRows(parameter);
      const shape = stateShape(parameter, rows);
      state = keepState({
        m: zeros(shape, m, device),
        v: zeros(shape, v, device),
        master: master && scope(() => noGrad(() => cast(partOf(parameter, rows), master))),
        step: zeros([1], step, device),
      });
      this.#state.set(parameter, state);
    }
    return state;
  }
}

function isPair(item: Given): item is readonly [string, Tensor] {
  return Array.isArray(item);
}

function isGroup(item: Given): item is AdamWGroupOptions {
  return !isPair(item) && 'params' in item;
}

function requireNumber(name: string, value: number, inRange: boolean, expected: string): void {
  if (Number.isFinite(value) && inRange) return;
  throw new ValueError(`AdamW: ${name} is ${String(value)}, expected a number ${expected}`);
}

function requireFactors({ lr, betas, eps, weightDecay }: AdamWGroup): void {
  requireNumber('lr', lr, lr >= 0, 'at least 0');
  for (const beta of betas) requireNumber('betas', beta, beta >= 0 && beta < 1, 'in [0, 1)');
  requireNumber('eps', eps, eps >= 0, 'at least 0');
  requireNumber('weightDecay', weightDecay, weightDecay >= 0, 'at least 0');
}

/** Rows of x, in the same memory. */
function partOf(x: Tensor, rows: RowRange | null): Tensor {
  return rows ? noGrad(() => narrow(x, rows[0], rows[1] - rows[0])) : x;
}

function stateShape({ shape }: Tensor, rows: RowRange | null): readonly number[] {
  return rows ? [rows[1] - rows[0], ...shape.slice(1)] : shape;
}

function stateDTypes({ dtype }: Tensor): { m: DType; v: DType; master: DType | null; step: DType } {
  const acc = dtype === 'f64' ? 'f64' : 'f32';
  return { m: acc, v: acc, master: dtype === 'bf16' ? 'f32' : null, step: 'i32' };
}

function keepState(state: State): State {
  for (const each of tensorsOf(state)) keep(each);
  return state;
}

function tensorsOf({ m, v, master, step }: State): Tensor[] {
  return master ? [m, v, master, step] : [m, v, step];
}

/** Takes one parameter's state out of `given`; null when there is nothing of it. */
function takeState(parameter: Tensor, name: string, given: Map<string, Tensor>): State | null {
  const wanted = Object.entries(stateDTypes(parameter)).filter(([, dtype]) => dtype !== null);
  if (!wanted.some(([key]) => given.has(`${name}.${key}`))) return null;
  const state: Partial<State> = { master: null };
  for (const [key, dtype] of wanted as [keyof State, DType][]) {
    const full = `${name}.${key}`;
    const found = given.get(full);
    if (!found) throw new CheckpointError(`AdamW.loadState: '${full}' is missing`);
    const shape = key === 'step' ? [1] : stateShape(parameter, parameter.trainableRows);
    const has = `${found.dtype} [${found.shape.join(', ')}]`;
    const expected = `${dtype} [${shape.join(', ')}]`;
    if (has !== expected)
      throw new CheckpointError(`AdamW.loadState: '${full}' is ${has}, expected ${expected}`);
    given.delete(full);
    state[key] = found;
  }
  return state as State;
}

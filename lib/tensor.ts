import { backward as runBackward, release, type Node } from './autograd/engine.js';
import { DTypeError, HandleError, ShapeError, ValueError } from './errors.js';
import { devices, dtypes, type Device, type DType, type Handle } from './native/binding.js';
import { native } from './native/load.js';
import { adopt } from './scope.js';

export type { Device, DType } from './native/binding.js';

/** What `data()` gives: bf16 comes widened as Float32Array, i64 as BigInt64Array. */
export type TensorData = Float64Array | Float32Array | BigInt64Array | Int32Array | Int8Array | Uint8Array;

/** Nested arrays of numbers, as deep as the tensor has dimensions. */
export type NestedArray = number | readonly NestedArray[];

/** Rows of dimension 0: the first, and the one after the last. */
export type RowRange = readonly [first: number, end: number];

const disposedId = -1;

/**
 * A handle on native memory: contiguous, row-major, of one dtype. Created by operations; freed by `dispose()`, `using`,
 * the `scope` it was made in, or, as a last resort, some time after it was garbage collected.
 */
export class Tensor {
  /** The native handle; -1 after `dispose()`. */
  id: Handle;
  /** Accumulated by `backward()` when this is a leaf that requires a gradient. Same shape and dtype. */
  grad: Tensor | null = null;
  /**
   * Of a leaf that requires a gradient: the rows [first, end) of dimension 0 that are trained. The gradient of all
   * others is 0, and AdamW leaves them exactly as they are. Null: all.
   */
  trainableRows: RowRange | null = null;
  /** @internal The operation that made this tensor, when a gradient flows through it. */
  node: Node | null = null;
  /** @internal Which of the node's outputs this is. */
  outputIndex = 0;
  /** @internal Counts in-place changes; shared by all tensors on the same memory. */
  version: { count: number };
  #requiresGrad = false;
  #description: { dtype: DType; device: Device; shape: readonly number[] } | null = null;

  /** @internal Takes over a handle that the addon returned. */
  constructor(id: Handle, version: { count: number } = { count: 0 }) {
    this.id = id;
    this.version = version;
  }

  #describe(): { dtype: DType; device: Device; shape: readonly number[] } {
    if (this.#description === null) {
      this.assertLive();
      const [dtype, device, ...shape] = native.describe(this.id);
      this.#description = { dtype: dtypes[dtype] as DType, device: devices[device] as Device, shape };
    }
    return this.#description;
  }

  /** Sizes of the dimensions; [] for a scalar. @throws HandleError when disposed and never asked before. */
  get shape(): readonly number[] {
    return this.#describe().shape;
  }

  /** The element type. */
  get dtype(): DType {
    return this.#describe().dtype;
  }

  /** Where the memory is. */
  get device(): Device {
    return this.#describe().device;
  }

  /** Number of elements. */
  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  /** Whether `dispose()` was called; using the tensor is then a HandleError. */
  get isDisposed(): boolean {
    return this.id === disposedId;
  }

  /** True for leaves that were asked to, and for whatever is computed from them outside `noGrad`. */
  get requiresGrad(): boolean {
    return this.#requiresGrad || this.node !== null;
  }

  /** @throws DTypeError for integer tensors. */
  set requiresGrad(value: boolean) {
    if (value && !['f64', 'f32', 'bf16'].includes(this.dtype)) {
      throw new DTypeError(
        `requiresGrad: a tensor of dtype ${this.dtype} has no gradient, expected f64, f32 or bf16`,
      );
    }
    this.#requiresGrad = value;
  }

  /** @internal @throws HandleError when disposed. */
  assertLive(): void {
    if (this.isDisposed) throw new HandleError('the tensor is disposed');
  }

  /**
   * Waits for the value.
   * @throws KernelError when computing it failed.
   */
  async data(): Promise<TensorData> {
    const { dtype } = this;
    const target = allocate(dtype, this.numel);
    this.assertLive();
    await native.read(this.id, target, true);
    return target;
  }

  /** Waits for the bytes as they are in memory (bf16: two bytes an element), little endian. */
  async bytes(target = new Uint8Array(this.numel * itemSize(this.dtype))): Promise<Uint8Array> {
    this.assertLive();
    await native.read(this.id, target, false);
    return target;
  }

  /** Waits for the only element. @throws ShapeError unless there is exactly one. */
  async item(): Promise<number> {
    if (this.numel !== 1)
      throw new ShapeError(`item: the tensor has shape [${this.shape.join(', ')}], expected 1 element`);
    return Number((await this.data())[0]);
  }

  /** The gradient of this scalar is added to `.grad` of every leaf it was computed from. */
  backward(): void {
    runBackward(this);
  }

  /** The same memory without the history: no gradient flows through it. */
  detach(): Tensor {
    this.assertLive();
    return wrap(native.alias(this.id), this.version);
  }

  /** Frees the memory as soon as enqueued work no longer needs it. Disposing twice is legal. */
  dispose(): void {
    if (this.isDisposed) return;
    native.dispose(this.id);
    this.id = disposedId;
    if (this.node) release(this.node);
  }

  /** As `dispose`, at the end of a `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal Makes a Tensor of a handle and gives it to the current scope. */
export function wrap(id: Handle, version?: { count: number }): Tensor {
  const result = new Tensor(id, version);
  adopt(result);
  return result;
}

export function itemSize(dtype: DType): number {
  return { f64: 8, i64: 8, f32: 4, i32: 4, bf16: 2, i8: 1, u8: 1 }[dtype];
}

function allocate(dtype: DType, length: number): TensorData {
  switch (dtype) {
    case 'f64':
      return new Float64Array(length);
    case 'f32':
    case 'bf16':
      return new Float32Array(length);
    case 'i64':
      return new BigInt64Array(length);
    case 'i32':
      return new Int32Array(length);
    case 'i8':
      return new Int8Array(length);
    case 'u8':
      return new Uint8Array(length);
  }
}

/** dtype, device, and whether gradients are wanted. */
export interface TensorOptions {
  /** Default: that of a given TypedArray, else f32. */
  dtype?: DType;
  /** Default: one dimension, or the nesting of the arrays. */
  shape?: readonly number[];
  /** Default 'cpu'. */
  device?: Device;
  /** Whether backward accumulates into `.grad`. Default false. */
  requiresGrad?: boolean;
}

/** Uninitialised memory. @internal */
export function empty(shape: readonly number[], dtype: DType, device: Device = 'cpu'): Tensor {
  return wrap(native.empty(dtypes.indexOf(dtype), shape, devices.indexOf(device)));
}

/** The bf16 bits nearest to each number (ties to even). */
function toBf16Bits(values: ArrayLike<number>): Uint16Array {
  const words = new Uint32Array(Float32Array.from(values).buffer);
  return Uint16Array.from(words, (word) =>
    (word & 0x7fffffff) > 0x7f800000 ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16,
  );
}

function encode(values: ArrayLike<number> | BigInt64Array, dtype: DType): NodeJS.TypedArray {
  if (dtype === 'i64') {
    return values instanceof BigInt64Array ? values : BigInt64Array.from(values, (v) => BigInt(v));
  }
  const numbers = values instanceof BigInt64Array ? Float64Array.from(values, Number) : values;
  switch (dtype) {
    case 'f64':
      return numbers instanceof Float64Array ? numbers : Float64Array.from(numbers);
    case 'f32':
      return numbers instanceof Float32Array ? numbers : Float32Array.from(numbers);
    case 'bf16':
      return toBf16Bits(numbers);
    case 'i32':
      return numbers instanceof Int32Array ? numbers : Int32Array.from(numbers);
    case 'i8':
      return numbers instanceof Int8Array ? numbers : Int8Array.from(numbers);
    case 'u8':
      return numbers instanceof Uint8Array ? numbers : Uint8Array.from(numbers);
  }
}

function naturalDType(values: unknown): DType {
  if (values instanceof Float64Array) return 'f64';
  if (values instanceof BigInt64Array) return 'i64';
  if (values instanceof Int32Array) return 'i32';
  if (values instanceof Int8Array) return 'i8';
  if (values instanceof Uint8Array) return 'u8';
  return 'f32';
}

function nestedShape(values: NestedArray): number[] {
  const shape: number[] = [];
  for (let level: NestedArray = values; typeof level !== 'number'; level = level[0] as NestedArray) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  return shape;
}

function flatten(values: NestedArray, shape: readonly number[], depth: number, into: number[]): void {
  if (typeof values === 'number') {
    if (depth !== shape.length) throw new ShapeError('tensor: the nested arrays differ in depth');
    into.push(values);
    return;
  }
  if (values.length !== shape[depth]) {
    throw new ShapeError(
      `tensor: the nested arrays differ in length: ${values.length} and ${shape[depth]} in dimension ${depth}`,
    );
  }
  for (const value of values) flatten(value, shape, depth + 1, into);
}

/**
 * A tensor with the given values, copied. Nested arrays give the shape; a flat array or TypedArray takes `shape`.
 * @throws ShapeError when arrays are ragged or the shape does not fit the number of values.
 */
export function tensor(values: NestedArray | TensorData, options: TensorOptions = {}): Tensor {
  const dtype = options.dtype ?? naturalDType(values);
  let flat: ArrayLike<number> | BigInt64Array;
  let shape: readonly number[];
  if (typeof values === 'number' || Array.isArray(values)) {
    const nested = nestedShape(values as NestedArray);
    const numbers: number[] = [];
    flatten(values as NestedArray, nested, 0, numbers);
    flat = numbers;
    shape = options.shape ?? nested;
  } else {
    flat = values as TensorData;
    shape = options.shape ?? [flat.length];
  }
  const numel = shape.reduce((product, size) => product * size, 1);
  if (numel !== flat.length) {
    throw new ShapeError(`tensor: ${flat.length} values do not fill shape [${shape.join(', ')}]`);
  }
  if (!dtypes.includes(dtype))
    throw new ValueError(`tensor: unknown dtype '${String(dtype)}', expected one of ${dtypes.join(', ')}`);
  const result = empty(shape, dtype, options.device);
  native.write(result.id, encode(flat, dtype), 0);
  if (options.requiresGrad) result.requiresGrad = true;
  return result;
}

/**
 * The typed boundary: every function of the addon. A `Handle` is a tensor's number (slot, generation, environment
 * tag); functions take and return handles and throw the errors of `lib/errors.ts`. Shapes: native/core/backend.h.
 */
export type Handle = number;

export const dtypes = ['f64', 'f32', 'bf16', 'i64', 'i32', 'i8', 'u8'] as const;
export type DType = (typeof dtypes)[number];
export type FloatDType = 'f64' | 'f32' | 'bf16';

export const devices = ['cpu', 'cuda'] as const;
export type Device = (typeof devices)[number];

/** Key of a counter-based random stream: [seed, stream], integers in [0, 2^53). */
export type RandomKey = readonly [seed: number, stream: number];

/** In the order of native/core/backend.h. */
export const unaryKinds = [
  ...([
    'gelu',
    'geluNew',
    'silu',
    'relu',
    'sigmoid',
    'tanh',
    'exp',
    'log',
    'sqrt',
    'square',
    'neg',
    'abs',
  ] as const),
  'softplus',
] as const;
export const binaryKinds = ['add', 'sub', 'mul', 'div'] as const;

export interface InstructionSets {
  /** Instruction sets in this binary, from the narrowest on. */
  built: string[];
  /** Those of them that this processor has. */
  supported: string[];
  chosen: string;
  /** Whether bf16 dot products (vdpbf16ps) are used. */
  bf16Dot: boolean;
}

export interface MemoryStats {
  /** Bytes of native memory that tensors hold. */
  live: number;
  /** Highest `live` since the start or the last reset. */
  peak: number;
  /** Bytes of free blocks kept for reuse. */
  cached: number;
  /** Number of live blocks. */
  blocks: number;
  /** Number of live tensor handles. */
  tensors: number;
}

export interface NativeBinding {
  // system
  setErrorClasses(classes: readonly (new (message: string) => Error)[]): void;
  synchronize(): Promise<void>;
  memoryStats(): MemoryStats;
  setMemoryLimit(bytes: number): void;
  resetPeakMemory(): void;
  trimMemory(): void;
  numThreads(): number;
  setNumThreads(count: number): void;
  instructionSets(): InstructionSets;
  failNext(op: string): void;
  poisonOutputs(on: boolean): void;

  // tensors
  track(x: Handle, owner: object): void;
  dispose(x: Handle): void;
  alias(x: Handle): Handle;
  describe(x: Handle): [dtype: number, device: number, ...shape: number[]];
  write(x: Handle, data: NodeJS.TypedArray, byteOffset: number): void;
  read(x: Handle, data: NodeJS.TypedArray, widen: boolean): Promise<void>;
  empty(dtype: number, shape: readonly number[], device: number): Handle;
  reshape(x: Handle, shape: readonly number[]): Handle;
  narrow(x: Handle, start: number, length: number): Handle;

  // elementwise
  binary(kind: number, a: Handle, b: Handle): Handle;
  affine(x: Handle, alpha: number, beta: number): Handle;
  accumulate(x: Handle, y: Handle, alpha: number): void;
}

/**
 * The typed boundary: every function of the addon. A `Handle` is a tensor's number (slot, generation, environment
 * tag); functions take and return handles and throw the errors of `lib/errors.ts`. Shapes: native/core/backend.h.
 */
export type Handle = number;

export const dtypes = ['f64', 'f32', 'bf16', 'i64', 'i32', 'i8', 'u8'] as const;
/** A tensor's element type. */
export type DType = (typeof dtypes)[number];
/** Element types that gradients can have. */
export type FloatDType = 'f64' | 'f32' | 'bf16';

export const devices = ['cpu', 'cuda'] as const;
/** Where a tensor is. */
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
export const randomKinds = ['uniform', 'normal'] as const;
export const normKinds = ['layerNorm', 'rmsNorm'] as const;

export const peakKinds = ['f64', 'f32', 'bf16', 'read', 'readWrite'] as const;
export const rowMaps = ['sorted', 'slot', 'token'] as const;
export const attentionKinds = ['stickBreaking', 'softmax'] as const;

/** The kernels in a binary, and which of them run. */
export interface InstructionSets {
  /** Instruction sets in this binary, from the narrowest on. */
  built: string[];
  /** Those of them that this processor has. */
  supported: string[];
  /** The one in use. */
  chosen: string;
  /** Whether bf16 dot products (vdpbf16ps) are used. */
  bf16Dot: boolean;
}

/** What a binary finds of CUDA on this machine. */
export interface CudaDevices {
  /** The devices that answer; device 'cuda' is the first one. */
  names: string[];
  /** Why there are none; '' when there are. */
  reason: string;
  /** The architectures in the binary, as CMake spells them and separated by commas; '' without CUDA. */
  architectures: string;
}

/** Native memory of an environment. */
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
  /** The first call: makes the environment's threads and tables. `whyNoCuda` completes the error of a CPU addon. */
  start(errorClasses: readonly (new (message: string) => Error)[], whyNoCuda: string): void;
  /** May be called before `start`. */
  cudaDevices(): CudaDevices;
  synchronize(): Promise<void>;
  memoryStats(): MemoryStats;
  setMemoryLimit(bytes: number): void;
  resetPeakMemory(): void;
  trimMemory(): void;
  numThreads(): number;
  setNumThreads(count: number): void;
  /** Jobs shared between threads so far, and the seconds in which threads were started or waited for at the end. */
  poolStats(): { jobs: number; seconds: number };
  instructionSets(): InstructionSets;
  /** Operations (or bytes read) per second that `threads` threads reach; kinds by their index in peakKinds. */
  measurePeak(kind: number, threads: number): number;
  failNext(op: string): void;
  poisonOutputs(on: boolean): void;

  // programs
  /** Whether a device's ops can be recorded and replayed; devices by their index in `devices`. */
  canReplay(device: number): boolean;
  beginRecording(device: number): void;
  /** The program's number; it lives until it is disposed or `owner` is collected. */
  endRecording(device: number, owner: object): number;
  cancelRecording(device: number): void;
  replay(device: number, program: number): void;
  disposeProgram(program: number): void;

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

  // grouped GEMM; rows and activations by their index in rowMaps and unaryKinds
  linear(
    x: Handle,
    weight: Handle,
    bias: Handle | null,
    activation: number | null,
    wantPreActivation: boolean,
    outputDType: number,
  ): [y: Handle, preActivation: Handle | null];
  linearInputGrad(dy: Handle, weight: Handle): Handle;
  linearWeightGrad(x: Handle, dy: Handle): Handle;
  groupedGemm(
    x: Handle,
    w: Handle,
    order: Handle,
    offsets: Handle,
    topK: number,
    xRows: number,
    outRows: number,
    transposeW: boolean,
    activation: number | null,
    wantPreActivation: boolean,
    preActivation: Handle | null,
  ): [y: Handle, preActivation: Handle | null];
  groupedGemmWeightGrad(
    x: Handle,
    dy: Handle,
    order: Handle,
    offsets: Handle,
    topK: number,
    xRows: number,
    dyRows: number,
  ): Handle;

  // 8-bit weights
  quantize(w: Handle, groupSize: number, transposeW: boolean): [values: Handle, scales: Handle];
  quantizedGemm(
    x: Handle,
    values: Handle,
    scales: Handle,
    order: Handle | null,
    offsets: Handle | null,
    topK: number,
    xRows: number,
    outRows: number,
    activation: number | null,
    outputDType: number,
  ): Handle;

  // tokens
  shiftLabels(labels: Handle): Handle;
  lastTokenRows(ids: Handle, pad: number): Handle;

  // elementwise
  cast(x: Handle, dtype: number): Handle;
  copyInto(x: Handle, y: Handle): void;
  fill(x: Handle, value: number): void;
  unary(kind: number, x: Handle): Handle;
  unaryBackward(kind: number, x: Handle, dy: Handle): Handle;
  binary(kind: number, a: Handle, b: Handle): Handle;
  affine(x: Handle, alpha: number, beta: number): Handle;
  accumulate(x: Handle, y: Handle, alpha: number): void;
  increment(x: Handle): void;

  // random
  random(kind: number, x: Handle, a: number, b: number, key: RandomKey): void;
  dropout(x: Handle, p: number, key: RandomKey): Handle;

  // reduce
  sum(x: Handle, first: number, last: number): Handle;
  expand(x: Handle, shape: readonly number[], first: number, last: number): Handle;
  mulRows(x: Handle, s: Handle): Handle;
  scaleInPlace(x: Handle, s: Handle): void;
  rowDot(a: Handle, b: Handle): Handle;

  // embedding
  embedding(weight: Handle, ids: Handle): Handle;
  embeddingBackward(dy: Handle, ids: Handle, V: number): Handle;

  // norm
  norm(
    kind: number,
    x: Handle,
    weight: Handle,
    bias: Handle | null,
    eps: number,
  ): [out: Handle, mean: Handle | null, rstd: Handle];
  normBackward(
    kind: number,
    x: Handle,
    weight: Handle,
    mean: Handle | null,
    rstd: Handle,
    dy: Handle,
    hasBias: boolean,
  ): [dx: Handle, dweight: Handle, dbias: Handle | null];

  // l2_normalize
  l2Normalize(x: Handle): [out: Handle, norm: Handle];
  l2NormalizeBackward(x: Handle, norm: Handle, dy: Handle): Handle;

  // softmax
  softmax(x: Handle, log: boolean): Handle;
  softmaxBackward(y: Handle, dy: Handle, log: boolean): Handle;

  // cross_entropy
  crossEntropy(logits: Handle, labels: Handle): [loss: Handle, lse: Handle, count: Handle];
  crossEntropyBackward(logits: Handle, labels: Handle, lse: Handle, count: Handle, dloss: Handle): Handle;

  // linear_cross_entropy
  linearCrossEntropy(
    x: Handle,
    weight: Handle,
    labels: Handle,
    wantDx: boolean,
    wantDweight: boolean,
  ): [loss: Handle, dx: Handle | null, dweight: Handle | null];

  // router
  route(
    logits: Handle,
    k: number,
    sample: number,
    key: RandomKey,
  ): [probs: Handle, gates: Handle, experts: Handle, order: Handle, inverse: Handle, offsets: Handle];
  routePlan(experts: Handle, numExperts: number): [order: Handle, inverse: Handle, offsets: Handle];
  gatherGates(probs: Handle, experts: Handle): Handle;
  gatherGatesBackward(dgates: Handle, experts: Handle, numExperts: number): Handle;
  routerLoss(
    logits: Handle,
    probs: Handle,
    gates: Handle,
    experts: Handle,
    mask: Handle | null,
  ): [losses: Handle, stats: Handle];
  routerLossBackward(logits: Handle, probs: Handle, mask: Handle | null, stats: Handle, dout: Handle): Handle;
  combine(y: Handle, gates: Handle | null, topK: number): Handle;
  combineBackward(
    dout: Handle,
    y: Handle,
    gates: Handle | null,
    topK: number,
    wantY: boolean,
    wantGates: boolean,
  ): [dy: Handle | null, dgates: Handle | null];

  // attention
  attention(
    kind: number,
    q: Handle,
    k: Handle,
    v: Handle,
    keyMask: Handle | null,
    documentStart: Handle | null,
    keyLength: number,
    attendCurrent: boolean,
    remainder: boolean,
    keepState: boolean,
    position?: Handle | null,
  ): [out: Handle, rowState: Handle | null, live: Handle | null];
  attentionBackward(
    kind: number,
    q: Handle,
    k: Handle,
    v: Handle,
    keyMask: Handle | null,
    documentStart: Handle | null,
    keyLength: number,
    attendCurrent: boolean,
    remainder: boolean,
    out: Handle | null,
    rowState: Handle,
    live: Handle | null,
    dout: Handle,
  ): [dq: Handle, dk: Handle, dv: Handle];
  attentionWeights(
    kind: number,
    q: Handle,
    k: Handle,
    keyMask: Handle | null,
    documentStart: Handle | null,
    keyLength: number,
    attendCurrent: boolean,
  ): Handle;
  rotary(x: Handle, positions: Handle, rotaryDim: number, base: number, inverse: boolean): Handle;
  cacheAppend(x: Handle, cache: Handle, start: number, position: Handle | null): void;

  // optimizer and sampling
  gradNorm(tensors: readonly Handle[]): [norm: Handle, finite: Handle];
  clipGradients(tensors: readonly Handle[], norm: Handle, maxNorm: number): void;
  adamW(
    parameters: readonly Handle[],
    gradients: readonly Handle[],
    m: readonly Handle[],
    v: readonly Handle[],
    master: readonly (Handle | null)[],
    step: readonly Handle[],
    finite: Handle | null,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
  ): void;
  sampleToken(
    logits: Handle,
    history: Handle | null,
    temperature: number,
    topK: number,
    topP: number,
    repetitionPenalty: number,
    key: RandomKey,
    step: Handle | null,
  ): Handle;
}

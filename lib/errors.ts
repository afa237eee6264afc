/**
 * Every error this package throws on purpose. `code` is stable and machine-readable; the message names the
 * operation, the argument, what was expected and what was given.
 */
export class ModuleFormerError extends Error {
  /** Stable, for programs: one for each class, as `MF_SHAPE`. */
  readonly code: string = 'MF_ERROR';
  /** Takes a message, and as `cause` the error that led to this one. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A shape, length or index does not fit: wrong rank, mismatched dimensions, K > E, an empty batch. */
export class ShapeError extends ModuleFormerError {
  override readonly code = 'MF_SHAPE';
}

/** A dtype is not what the operation takes, or two that must agree differ. */
export class DTypeError extends ModuleFormerError {
  override readonly code = 'MF_DTYPE';
}

/** A tensor handle that is disposed, belongs to another environment, or is no tensor at all. */
export class HandleError extends TypeError {
  /** Stable, for programs. */
  readonly code = 'MF_HANDLE';
  /** Takes the message. */
  constructor(message: string) {
    super(message);
    this.name = 'HandleError';
  }
}

/** A value is outside what is legal: an id outside the vocabulary, a negative rate, a NaN where none may be. */
export class ValueError extends ModuleFormerError {
  override readonly code = 'MF_VALUE';
}

/** A kernel failed while running; the message names the operation. Results computed from it are poisoned. */
export class KernelError extends ModuleFormerError {
  override readonly code = 'MF_KERNEL';
}

/** Native memory ran out; the message says what was asked for and what is live. */
export class OutOfMemoryError extends ModuleFormerError {
  override readonly code = 'MF_MEMORY';
}

/** A config has an unknown, missing or impossible value; the message says which and why. */
export class ConfigError extends ModuleFormerError {
  override readonly code = 'MF_CONFIG';
}

/** A file is truncated, oversized, hostile or does not fit what it should be loaded into. */
export class CheckpointError extends ModuleFormerError {
  override readonly code = 'MF_CHECKPOINT';
}

/** A data set, corpus or tokenizer cannot be used as asked. */
export class DataError extends ModuleFormerError {
  override readonly code = 'MF_DATA';
}

/** Autograd misuse: backward twice, a saved tensor changed in place, no gradient to compute. */
export class AutogradError extends ModuleFormerError {
  override readonly code = 'MF_AUTOGRAD';
}

/** Training stopped because the loss or the gradient norm became NaN or infinite. */
export class DivergenceError extends ModuleFormerError {
  override readonly code = 'MF_DIVERGENCE';
}

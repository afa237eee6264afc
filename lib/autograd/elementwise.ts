import {
  binaryKinds,
  dtypes,
  unaryKinds,
  type FloatDType,
  type DType,
  type Handle,
} from '../native/binding.js';
import { native } from '../native/load.js';
import { empty, wrap, type Device, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

type UnaryName = (typeof unaryKinds)[number];
type BinaryName = (typeof binaryKinds)[number];

function unary(name: UnaryName): (x: Tensor) => Tensor {
  const kind = unaryKinds.indexOf(name);
  return (x) =>
    apply(native.unary(kind, x.id), {
      name,
      inputs: [x],
      saved: () => [x],
      backward: ([dy], [x]) => [wrap(native.unaryBackward(kind, (x as Tensor).id, (dy as Tensor).id))],
    });
}

// Functions of one number, for every element of x: f64, f32 or bf16 of any shape.
/** x * P(X <= x) for a standard normal X (the exact form). */
export const gelu = unary('gelu');
/** 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the form that Hugging Face calls gelu_new. */
export const geluNew = unary('geluNew');
/** x * sigmoid(x). */
export const silu = unary('silu');
/** max(x, 0). */
export const relu = unary('relu');
/** 1 / (1 + exp(-x)). */
export const sigmoid = unary('sigmoid');
/** The hyperbolic tangent. */
export const tanh = unary('tanh');
/** The exponential. */
export const exp = unary('exp');
/** The natural logarithm. */
export const log = unary('log');
/** The square root; NaN below 0. */
export const sqrt = unary('sqrt');
/** x * x. */
export const square = unary('square');
/** -x. */
export const neg = unary('neg');
/** The absolute value; its gradient at 0 is 0. */
export const abs = unary('abs');
/** log(1 + exp(x)). */
export const softplus = unary('softplus');

function binaryOp(name: BinaryName, a: Handle, b: Handle): Handle {
  return native.binary(binaryKinds.indexOf(name), a, b);
}

/** Adds up what each element of `shape` received where it was repeated along the gradient's leading dimensions. */
function sumTo(gradient: Tensor, shape: readonly number[]): Tensor {
  const repeated = shape.findIndex((size) => size !== 1);
  const trailing = repeated < 0 ? 0 : shape.length - repeated;
  const sum = wrap(native.sum(gradient.id, 0, gradient.shape.length - trailing));
  return wrap(native.reshape(sum.id, shape));
}

function binary(
  name: BinaryName,
  saved: (a: Tensor, b: Tensor, y: Tensor) => readonly Tensor[],
  rule: (dy: Tensor, saved: Tensor[]) => { da: () => Tensor; db: () => Tensor },
): (a: Tensor, b: Tensor) => Tensor {
  return (a, b) => {
    const { shape } = b;
    return apply(binaryOp(name, a.id, b.id), {
      name,
      inputs: [a, b],
      saved: (y) => saved(a, b, y),
      backward: ([dy], kept, [wantA, wantB]) => {
        const { da, db } = rule(dy as Tensor, kept);
        return [wantA ? da() : null, wantB ? sumTo(db(), shape) : null];
      },
    });
  };
}

const times = (a: Tensor, b: Tensor): Tensor => wrap(binaryOp('mul', a.id, b.id));
const over = (a: Tensor, b: Tensor): Tensor => wrap(binaryOp('div', a.id, b.id));
const negated = (x: Tensor): Tensor => wrap(native.affine(x.id, -1, 0));

// Of two numbers, element by element, in a's shape. b has the same dtype; its shape is a's, or a's trailing dimensions,
// over whose leading ones it is repeated ([1] and [] fit every a). A ShapeError or DTypeError says what does not fit.
/** a + b; b is repeated along a's leading dimensions. */
export const add = binary(
  'add',
  () => [],
  (dy) => ({ da: () => dy, db: () => dy }),
);
/** a - b; b is repeated along a's leading dimensions. */
export const sub = binary(
  'sub',
  () => [],
  (dy) => ({ da: () => dy, db: () => negated(dy) }),
);
/** a * b; b is repeated along a's leading dimensions. */
export const mul = binary(
  'mul',
  (a, b) => [a, b],
  (dy, [a, b]) => ({ da: () => times(dy, b as Tensor), db: () => times(dy, a as Tensor) }),
);
/** a / b; b is repeated along a's leading dimensions. */
export const div = binary(
  'div',
  (_, b, y) => [b, y],
  (dy, [b, y]) => ({
    da: () => over(dy, b as Tensor),
    db: () => negated(over(times(dy, y as Tensor), b as Tensor)),
  }),
);

/** alpha * x + beta, for numbers alpha and beta. */
export function affine(x: Tensor, alpha: number, beta: number): Tensor {
  return apply(native.affine(x.id, alpha, beta), {
    name: 'affine',
    inputs: [x],
    backward: ([dy]) => [wrap(native.affine((dy as Tensor).id, alpha, 0))],
  });
}

/** alpha * x. */
export function scale(x: Tensor, alpha: number): Tensor {
  return affine(x, alpha, 0);
}

/**
 * x in another dtype. To an integer: towards zero, saturating, NaN gives 0. The gradient flows between f64, f32 and bf16.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  const from = dtypes.indexOf(x.dtype);
  const id = native.cast(x.id, dtypes.indexOf(dtype));
  if (!isFloating(dtype)) return wrap(id);
  return apply(id, {
    name: 'cast',
    inputs: [x],
    backward: ([dy]) => [wrap(native.cast((dy as Tensor).id, from))],
  });
}

function isFloating(dtype: DType): dtype is FloatDType {
  return dtype === 'f64' || dtype === 'f32' || dtype === 'bf16';
}

/** Overwrites target with source, converted to its dtype; the shapes are equal. No gradient flows. */
export function copyInto(target: Tensor, source: Tensor): void {
  native.copyInto(source.id, target.id);
  target.version.count++;
}

/** Adds 1 to every element of x, i32. No gradient flows. @throws DTypeError */
export function increment(x: Tensor): void {
  native.increment(x.id);
  x.version.count++;
}

/** Sets every element of x to value. No gradient flows. */
export function fill(x: Tensor, value: number): void {
  native.fill(x.id, value);
  x.version.count++;
}

/** A tensor of zeros of a shape. */
export function zeros(shape: readonly number[], dtype: DType = 'f32', device: Device = 'cpu'): Tensor {
  const x = empty(shape, dtype, device);
  native.fill(x.id, 0);
  return x;
}

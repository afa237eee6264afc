import { ValueError } from '../errors.js';
import { randomKinds, type DType, type RandomKey } from '../native/binding.js';
import { native } from '../native/load.js';
import { empty, wrap, type Device, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

/** dtype, device and range of random numbers. */
export interface RandomOptions {
  /** Default 'f32'. */
  dtype?: DType;
  /** Default 'cpu'. */
  device?: Device;
}

function random(
  kind: (typeof randomKinds)[number],
  shape: readonly number[],
  [a, b]: readonly [number, number],
  key: RandomKey,
  { dtype = 'f32', device = 'cpu' }: RandomOptions,
): Tensor {
  const x = empty(shape, dtype, device);
  native.random(randomKinds.indexOf(kind), x.id, a, b, checked(key));
  return x;
}

function checked(key: RandomKey): RandomKey {
  for (const word of key) {
    if (!Number.isSafeInteger(word) || word < 0)
      throw new ValueError(
        `random: the key is [${key.join(', ')}], expected two integers from 0 to 2^53 - 1`,
      );
  }
  return key;
}

/**
 * Numbers from [low, high): element i depends on (seed, stream, i) alone, so the same key gives the same numbers on any
 * number of threads, and in every dtype up to rounding.
 * @throws ValueError when low is above high or a bound is not finite.
 */
export function randomUniform(
  shape: readonly number[],
  key: RandomKey,
  options: RandomOptions & { low?: number; high?: number } = {},
): Tensor {
  return random('uniform', shape, [options.low ?? 0, options.high ?? 1], key, options);
}

/**
 * Normally distributed numbers; element i depends on (seed, stream, i) alone, as with `randomUniform`.
 * @throws ValueError when standardDeviation is negative or a parameter is not finite.
 */
export function randomNormal(
  shape: readonly number[],
  key: RandomKey,
  options: RandomOptions & { mean?: number; standardDeviation?: number } = {},
): Tensor {
  return random('normal', shape, [options.mean ?? 0, options.standardDeviation ?? 1], key, options);
}

/**
 * Each element of x divided by 1 - p, or 0 with probability p. Which ones is a function of the key and the index; the same
 * key gives the same mask.
 * @throws ValueError unless p is from 0 to 1.
 */
export function dropout(x: Tensor, p: number, key: RandomKey): Tensor {
  return apply(native.dropout(x.id, p, checked(key)), {
    name: 'dropout',
    inputs: [x],
    backward: ([dy]) => [wrap(native.dropout((dy as Tensor).id, p, key))],
  });
}

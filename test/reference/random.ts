import { philox } from './philox.js';

export interface Key {
  seed: number;
  stream: number;
}

/** The 32 random bits of element i: word i % 4 of block i / 4. */
export function word({ seed, stream }: Key, i: number, offset = 0n): number {
  const block = philox(BigInt(seed), BigInt(stream), BigInt(Math.floor(i / 4)) + offset);
  return block[i % 4] as number;
}

/** Element i of [0, 1): 24 bits of its word; in f64 53 bits, the low ones from block 2^63 + i / 4. */
export function uniform(key: Key, i: number, dtype: 'f32' | 'f64'): number {
  const high = word(key, i);
  if (dtype === 'f32') return (high >>> 8) * 2 ** -24;
  const low = word(key, i, 1n << 63n);
  return Number(((BigInt(high) << 32n) | BigInt(low)) >> 11n) * 2 ** -53;
}

/** Element i of the standard normal numbers: Box-Muller of the words of elements 2j and 2j + 1. */
export function normal(key: Key, i: number): number {
  const first = i - (i % 2);
  const radius = Math.sqrt(-2 * Math.log((word(key, first) + 1) * 2 ** -32));
  const angle = 2 * Math.PI * word(key, first + 1) * 2 ** -32;
  return radius * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
}

/** x / (1 - p) where the word is at least p * 2^32, else 0. */
export function dropout(x: ArrayLike<number>, p: number, key: Key): Float64Array {
  return Float64Array.from(x, (v, i) => (word(key, i) >= p * 2 ** 32 ? v / (1 - p) : 0));
}

import { ValueError } from '../errors.js';

/** A seeded stream of random numbers; the same seed and stream give the same numbers on every machine. */
export interface Random {
  /** A 32-bit unsigned integer. */
  uint32(): number;
  /** A number in [0, 1) with 53 random bits. */
  next(): number;
  /** An integer in [0, n), every one equally likely; n up to 2^32. */
  below(n: number): number;
}

/** The finalizer of splitmix64 in its 32-bit form (murmur3's constants): a bijection that mixes every bit. */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/**
 * sfc32 (Chris Doty-Humphrey's small fast counting generator, which passes PractRand), its state mixed from the seed
 * and the number of the stream, so that streams such as epochs are independent.
 *
 * @throws ValueError when seed or stream is no integer in [0, 2^53).
 */
export function createRandom(seed: number, stream = 0): Random {
  for (const [name, value] of Object.entries({ seed, stream })) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new ValueError(`${name} must be an integer from 0 to 2^53 - 1, got ${value}`);
    }
  }
  let a = mix(seed) ^ mix(stream + 0x9e3779b9);
  let b = mix(seed / 2 ** 32 + 0x7f4a7c15);
  let c = mix(stream / 2 ** 32 + 0x94d049bb);
  let counter = 1;
  const uint32 = (): number => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + result;
    return result >>> 0;
  };
  for (let i = 0; i < 16; i++) uint32();
  return {
    uint32,
    next: () => (uint32() * 2 ** 21 + (uint32() >>> 11)) / 2 ** 53,
    below(n) {
      const limit = 2 ** 32 - (2 ** 32 % n); // numbers from here on would favour the small results
      for (;;) {
        const value = uint32();
        if (value < limit) return value % n;
      }
    },
  };
}

/** The numbers 0 .. n-1 in random order (Fisher-Yates); n up to 2^32. */
export function permutation(n: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const last = order[i] as number;
    order[i] = order[j] as number;
    order[j] = last;
  }
  return order;
}

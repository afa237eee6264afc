const MASK = 0xffffffffn;

/** Philox 4x32-10 by the paper: counter = (index, stream), key = seed, each 64 bits, low word first. */
export function philox(seed: bigint, stream: bigint, index: bigint): [number, number, number, number] {
  let [c0, c1, c2, c3] = [index & MASK, (index >> 32n) & MASK, stream & MASK, (stream >> 32n) & MASK];
  let [k0, k1] = [seed & MASK, (seed >> 32n) & MASK];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & MASK, (p0 >> 32n) ^ c3 ^ k1, p0 & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return [Number(c0), Number(c1), Number(c2), Number(c3)];
}

/** Uniform in [0, 1) with 53 bits, from the first two words of a block. */
export function uniform53([high, low]: readonly [number, number, ...number[]]): number {
  return Number(((BigInt(high) << 32n) | BigInt(low)) >> 11n) * 2 ** -53;
}

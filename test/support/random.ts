/** A small seeded generator for test data (mulberry32): uniform numbers in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function normals(seed: number, length: number, scale = 1): Float64Array {
  const next = generator(seed);
  return Float64Array.from(
    { length },
    () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
}

/** N rows of E numbers in (0, 1), in random order and at least 1 / (2E) apart: no small change alters their ranking. */
export function spacedRows(seed: number, N: number, E: number): Float64Array {
  const next = generator(seed);
  const rows = Array.from({ length: N }, () => {
    const order = Array.from({ length: E }, (_, e) => [next(), e] as const).sort(([a], [b]) => a - b);
    return order.map(([, rank]) => (rank + 0.25 + next() / 2) / E);
  });
  return Float64Array.from(rows.flat());
}

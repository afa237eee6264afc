import { philox, uniform53 } from './philox.js';

export interface Key {
  seed: bigint;
  stream: bigint;
}

function row(values: ArrayLike<number>, n: number, width: number): number[] {
  return Array.from({ length: width }, (_, i) => values[n * width + i]!);
}

/** The expert indices of a row by falling probability, lower index first on ties, NaN last. */
function ranking(p: number[]): number[] {
  const rank = (e: number): number => (Number.isNaN(p[e]) ? -Infinity : p[e]!);
  return p.map((_, e) => e).sort((a, b) => (rank(a) === rank(b) ? a - b : rank(b) - rank(a)));
}

function draw(weights: number[], u: number): number {
  const target = u * weights.reduce((sum, w) => sum + w, 0);
  let sum = 0;
  for (const [e, w] of weights.entries()) {
    sum += w;
    if (w > 0 && sum > target) return e;
  }
  return weights.findLastIndex((w) => w > 0);
}

/** probs [N, E] -> experts [N, K]: the K - sample largest, then `sample` draws in proportion to p + 1e-6. */
export function route(
  probs: ArrayLike<number>,
  { N, E, K, sample = 0, key }: { N: number; E: number; K: number; sample?: number; key?: Key },
): { experts: Int32Array; gates: Float64Array } {
  const experts = new Int32Array(N * K);
  for (let n = 0; n < N; n++) {
    const p = row(probs, n, E);
    const chosen = ranking(p).slice(0, K - sample);
    for (let i = 0; i < sample; i++) {
      const weights = p.map((value, e) => (chosen.includes(e) ? 0 : value + 1e-6));
      chosen.push(draw(weights, uniform53(philox(key!.seed, key!.stream, BigInt(n * sample + i)))));
    }
    experts.set(chosen, n * K);
  }
  return { experts, gates: gatherGates(probs, experts, { N, E, K }) };
}

/** probs [N, E], experts [N, K] -> gates [N, K]. */
export function gatherGates(
  probs: ArrayLike<number>,
  experts: ArrayLike<number>,
  { N, E, K }: { N: number; E: number; K: number },
): Float64Array {
  return Float64Array.from({ length: N * K }, (_, i) => probs[Math.floor(i / K) * E + experts[i]!]!);
}

/** experts [R] -> the rows sorted by expert (stable), the inverse permutation, and where each expert starts. */
export function routePlan(
  experts: ArrayLike<number>,
  E: number,
): { order: number[]; inverse: number[]; offsets: number[] } {
  const rows = Array.from(experts);
  const order = rows.map((_, r) => r).sort((a, b) => rows[a]! - rows[b]! || a - b);
  const inverse = new Array<number>(rows.length);
  order.forEach((r, sorted) => (inverse[r] = sorted));
  const offsets = Array.from({ length: E + 1 }, (_, e) => rows.filter((expert) => expert < e).length);
  return { order, inverse, offsets };
}

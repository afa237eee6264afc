import { philox, uniform53 } from './philox.js';
import type { Key } from './router.js';

export interface SampleOptions {
  temperature: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  /** Token ids of this row, -1 is padding. */
  history?: readonly number[];
  key?: Key;
}

function penalised(
  logits: readonly number[],
  { history = [], repetitionPenalty = 1 }: SampleOptions,
): number[] {
  return logits.map((l, id) => {
    if (!history.includes(id)) return l;
    return l < 0 ? l * repetitionPenalty : l / repetitionPenalty;
  });
}

/** The tokens that top-k and top-p leave, each with its unnormalised probability, by rising id. */
export function distribution(
  logits: readonly number[],
  options: SampleOptions,
): [id: number, weight: number][] {
  const { temperature, topK = 0, topP = 1 } = options;
  const scores = penalised(logits, options);
  const top = Math.max(...scores);
  let ids = scores.map((_, id) => id).sort((a, b) => scores[b]! - scores[a]! || a - b);
  if (topK > 0 && topK < ids.length) {
    const threshold = scores[ids[topK - 1]!]!;
    ids = ids.filter((id) => scores[id]! >= threshold);
  }
  const weight = (id: number): number => Math.exp((scores[id]! - top) / temperature);
  const total = ids.reduce((sum, id) => sum + weight(id), 0);
  let before = 0;
  const kept = ids.filter((id, i) => {
    const keep = topP >= 1 || i === 0 || before < topP * total;
    before += weight(id);
    return keep;
  });
  return kept.sort((a, b) => a - b).map((id) => [id, weight(id)]);
}

/** The token of one row of logits; temperature 0 takes the first maximum. */
export function sampleToken(logits: readonly number[], row: number, options: SampleOptions): number {
  if (options.temperature === 0) {
    const scores = penalised(logits, options);
    return scores.indexOf(Math.max(...scores));
  }
  const kept = distribution(logits, options);
  const { seed, stream } = options.key!;
  const target = uniform53(philox(seed, stream, BigInt(row))) * kept.reduce((sum, [, w]) => sum + w, 0);
  let sum = 0;
  for (const [id, w] of kept) {
    sum += w;
    if (sum > target) return id;
  }
  return kept.at(-1)![0];
}

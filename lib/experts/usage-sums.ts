import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { ValueError } from '../errors.js';
import { entropy } from './information.js';
import type { ExpertKind, RouterUsage, TokenUsage } from './usage.js';

/** What is read of a router after a pass over N tokens: numbers on the host. */
export interface RouterNumbers {
  /** [3, E]: probability mass, choices, gate mass. */
  statistics: ArrayLike<number>;
  /** [4], the first of which is the mutual-information loss. */
  losses: ArrayLike<number>;
  /** [N, K] each, when wanted. */
  choices: ArrayLike<number> | null;
  gates: ArrayLike<number> | null;
  norms: ArrayLike<number> | null;
}

/** Inside the logarithm of the mutual-information loss. */
const FLOOR = 1e-8;

/** Adds up what one router did, batch by batch. */
export class RouterSums {
  readonly #probabilities: number[];
  readonly #choices: number[];
  readonly #gates: number[];
  readonly #outputs: number[] | null;
  #conditional = 0;

  constructor(experts: number, outputMass: boolean) {
    const zeros = (): number[] => Array<number>(experts).fill(0);
    this.#probabilities = zeros();
    this.#choices = zeros();
    this.#gates = zeros();
    this.#outputs = outputMass ? zeros() : null;
  }

  /** @param tokens how many of the pass counted; @param mask [N], 0 where a token did not. */
  add({ statistics, losses, choices, gates, norms }: RouterNumbers, tokens: number, mask: Int32Array): void {
    const E = this.#choices.length;
    let floored = 0;
    for (let e = 0; e < E; e++) {
      const mass = statistics[e] as number;
      add(this.#probabilities, e, mass);
      add(this.#choices, e, statistics[E + e] as number);
      add(this.#gates, e, statistics[2 * E + e] as number);
      floored += (mass / tokens) * Math.log(mass / tokens + FLOOR);
    }
    // The loss is the sum of p log(p + 1e-8) plus the mean entropy of a token.
    this.#conditional += tokens * Math.max(0, (losses[0] as number) - floored);
    if (!this.#outputs || !choices || !gates || !norms) return;
    const K = choices.length / mask.length;
    for (let row = 0; row < choices.length; row++) {
      if (mask[Math.floor(row / K)] === 0) continue;
      add(this.#outputs, choices[row] as number, (gates[row] as number) * (norms[row] as number));
    }
  }

  usage(tokens: number): RouterUsage {
    return {
      choices: this.#choices,
      gateMass: this.#gates,
      probabilityMass: this.#probabilities,
      ...(this.#outputs ? { outputMass: this.#outputs } : {}),
      marginalEntropy: entropy(this.#probabilities),
      conditionalEntropy: tokens > 0 ? this.#conditional / tokens : 0,
    };
  }
}

/** Counts the experts of some tokens. */
export class TokenCounter {
  readonly #usage: ReadonlyMap<number, TokenUsage>;

  /** @throws ValueError for an id outside the vocabulary. */
  constructor({ config }: ModuleFormerForCausalLM, ids: readonly number[]) {
    const { attentionExperts, mlpExperts, vocab_size } = config;
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= vocab_size)
        throw new ValueError(`expertUsage: token ${id} is outside the vocabulary of ${vocab_size}`);
    }
    const zeros = (E = 0): number[] => Array<number>(E).fill(0);
    const empty = (id: number): TokenUsage => ({
      id,
      count: 0,
      blocks: attentionExperts.map((E, block) => ({ attention: zeros(E), mlp: zeros(mlpExperts[block]) })),
    });
    this.#usage = new Map(ids.map((id) => [id, empty(id)]));
  }

  get usage(): TokenUsage[] {
    return [...this.#usage.values()];
  }

  /** Whether any of the ids [N] is counted. */
  isWanted(ids: Int32Array): boolean {
    return this.#usage.size > 0 && ids.some((id) => this.#usage.has(id));
  }

  count(ids: Int32Array, mask: Int32Array): void {
    ids.forEach((id, n) => {
      const usage = mask[n] === 0 ? undefined : this.#usage.get(id);
      if (usage) usage.count++;
    });
  }

  /** @param choices [N, K] of one router. */
  add(ids: Int32Array, mask: Int32Array, kind: ExpertKind, block: number, choices: ArrayLike<number>): void {
    if (this.#usage.size === 0) return;
    const K = choices.length / ids.length;
    ids.forEach((id, n) => {
      const counts = mask[n] === 0 ? undefined : this.#usage.get(id)?.blocks[block]?.[kind];
      if (!counts) return;
      for (let k = 0; k < K; k++) add(counts, choices[n * K + k] as number, 1);
    });
  }
}

function add(sums: number[], e: number, value: number): void {
  sums[e] = (sums[e] as number) + value;
}

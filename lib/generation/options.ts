import { ValueError } from '../errors.js';
import type { TokenMatrix } from '../model/inputs.js';

/** What is generated, how tokens are drawn and when it ends. */
export interface GenerationOptions {
  /** The prompts [B, T]. Prompts of several lengths are padded on the left: `padLeft` does it. */
  inputIds: TokenMatrix;
  /** `[B, T]`: 0 marks the padding at the beginning of a row, 1 the prompt. Default: no padding. */
  attentionMask?: TokenMatrix;
  /** The most tokens that each row gets. */
  maxNewTokens: number;
  /** 0 always takes the most probable token; below 1 favours probable ones, above 1 improbable ones. Default 1. */
  temperature?: number;
  /** Draw among so many of the most probable tokens; 0, the default, is all. */
  topK?: number;
  /** Draw among the fewest tokens whose probabilities sum to this, in (0, 1]. Default 1: all. */
  topP?: number;
  /** Above 1, makes tokens of the prompt and of the text so far less probable. Default 1. */
  repetitionPenalty?: number;
  /** Same seed, same tokens. Default 0. */
  seed?: number;
  /** A row ends after one of these. Default: the config's `eos_token_id`; none with []. */
  stopTokens?: readonly number[];
  /** Ends generation early: with the signal's reason as the error. */
  signal?: AbortSignal;
}

/** How tokens are drawn, complete and checked. */
export interface Sampling {
  temperature: number;
  topK: number;
  topP: number;
  repetitionPenalty: number;
  seed: number;
}

/** @throws ValueError that names the option, what is expected and what was given. */
export function checkSampling(options: GenerationOptions): Sampling {
  const { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1, seed = 0 } = options;
  check('temperature', temperature, temperature >= 0 && temperature < Infinity, '0 or a positive number');
  check('topK', topK, Number.isSafeInteger(topK) && topK >= 0, '0 or a positive integer');
  check('topP', topP, topP > 0 && topP <= 1, 'a number above 0 and at most 1');
  const penalty = repetitionPenalty;
  check('repetitionPenalty', penalty, penalty > 0 && penalty < Infinity, 'a positive number');
  check('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'an integer from 0 to 2^53 - 1');
  return { temperature, topK, topP, repetitionPenalty, seed };
}

/** @throws ValueError unless it is an integer of at least 1. */
export function checkMaxNewTokens({ maxNewTokens }: GenerationOptions): number {
  check(
    'maxNewTokens',
    maxNewTokens,
    Number.isSafeInteger(maxNewTokens) && maxNewTokens >= 1,
    'a positive integer',
  );
  return maxNewTokens;
}

/** @throws ValueError for a stop token outside the vocabulary, which no text can reach. */
export function checkStopTokens(
  { stopTokens }: GenerationOptions,
  config: { vocab_size: number; eos_token_id: number | null },
): ReadonlySet<number> {
  if (!stopTokens) return new Set(config.eos_token_id === null ? [] : [config.eos_token_id]);
  for (const id of stopTokens) {
    const inside = Number.isInteger(id) && id >= 0 && id < config.vocab_size;
    check('stopTokens', id, inside, `ids in the vocabulary of ${config.vocab_size}`);
  }
  return new Set(stopTokens);
}

function check(name: string, value: unknown, legal: boolean, expected: string): void {
  if (typeof value !== 'number' || !legal) {
    throw new ValueError(`generate: ${name} is ${String(value)}, expected ${expected}`);
  }
}

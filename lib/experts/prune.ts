import { createRandom } from '../data/random.js';
import { ShapeError, ValueError } from '../errors.js';
import type { ModuleFormerConfig } from '../model/config.js';
import { countParameters } from '../model/count-parameters.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { itemSize } from '../tensor.js';
import { shares } from './information.js';
import { expertCounts, withExperts } from './rebuild.js';
import { EXPERT_KINDS, type ExpertKind, type UsageReport } from './usage.js';

/**
 * By what experts are ranked: how often they are chosen, the mass of their gates, gate times the norm of their output,
 * or at random (a control).
 */
export const PRUNE_CRITERIA = ['frequency', 'gateMass', 'outputMass', 'random'] as const;
export type PruneCriterion = (typeof PRUNE_CRITERIA)[number];

/** How many experts of a kind go; at least K of each router stay. */
export type PruneAmount =
  /** This part of each router's experts, rounded; with scope 'model', of all routers' experts together. */
  | { fraction: number; scope?: 'block' | 'model' }
  /** Those whose share of their router's score is below this. */
  | { threshold: number }
  /** All but this many of each router. */
  | { count: number };

/** Which experts are removed, by which measure. */
export interface PruneOptions {
  /** By what experts are ranked. */
  criterion: PruneCriterion;
  /** Without it all attention experts stay. */
  attention?: PruneAmount | undefined;
  /** Without it all MLP experts stay. */
  mlp?: PruneAmount | undefined;
  /** Of the text that the model is for; needed unless at random. For 'outputMass' it must have been asked for. */
  usage?: UsageReport | undefined;
  /** Of the random choice. Default 0. */
  seed?: number;
}

/** Per block a number for each expert; those of a router add up to 1. */
export type ExpertScores = Record<ExpertKind, number[]>[];
/** Per block the experts, ascending. */
export type ExpertLists = Record<ExpertKind, number[]>[];

/** The smaller model, and what was removed. */
export interface PruneResult {
  /** The smaller model; the one given stays as it is. */
  model: ModuleFormerForCausalLM;
  /** The experts that stayed, by their old numbers. */
  kept: ExpertLists;
  /** The experts that are gone. */
  removed: ExpertLists;
  /** All parameters of both models. */
  parameters: { before: number; after: number };
  /** In the model's dtype. */
  bytesSaved: number;
}

/**
 * Removes the experts of least score, with their rows of the routers. What stays is as it was; the gates of a token
 * rise, as the router's softmax has fewer terms.
 * @throws ValueError for amounts that are out of range, and when usage is missing or of another model.
 */
export function pruneExperts(model: ModuleFormerForCausalLM, options: PruneOptions): PruneResult {
  const scores = expertScores(model.config, options);
  const kept = chooseKept(model.config, scores, options);
  const pruned = withExperts(model, kept);
  const removed = kept.map((block, n) => ({
    attention: complement(block.attention, expertCounts(model.config, 'attention')[n] as number),
    mlp: complement(block.mlp, expertCounts(model.config, 'mlp')[n] as number),
  }));
  const parameters = {
    before: countParameters(model.config).total,
    after: countParameters(pruned.config).total,
  };
  const bytesSaved = (parameters.before - parameters.after) * itemSize(model.dtype);
  return { model: pruned, kept, removed, parameters, bytesSaved };
}

/**
 * Every expert's share of its router's score; domains count the same.
 * @throws ValueError
 */
export function expertScores(
  config: ModuleFormerConfig,
  { criterion, usage, seed = 0 }: Pick<PruneOptions, 'criterion' | 'usage' | 'seed'>,
): ExpertScores {
  const random = createRandom(seed);
  return Array.from({ length: config.n_layer }, (_, block) => {
    const of = (kind: ExpertKind): number[] => {
      const E = expertCounts(config, kind)[block] as number;
      if (criterion === 'random') return shares(Array.from({ length: E }, () => random.next()));
      if (!usage) throw new ValueError(`prune: the criterion ${criterion} needs usage`);
      const perDomain = usage.domains.map(({ blocks }) => {
        const router = blocks[block]?.[kind];
        const field = criterion === 'frequency' ? 'choices' : criterion;
        const weights = router?.[field];
        if (router?.choices.length !== E) throw new ValueError('prune: the usage is that of another model');
        if (!weights) throw new ValueError('prune: the usage was measured without outputMass');
        return shares(weights);
      });
      return Array.from({ length: E }, (__, e) =>
        perDomain.reduce((sum, domain) => sum + (domain[e] as number) / perDomain.length, 0),
      );
    };
    return { attention: of('attention'), mlp: of('mlp') };
  });
}

/** The experts that stay. @throws ValueError, ShapeError for amounts out of range. */
export function chooseKept(
  config: ModuleFormerConfig,
  scores: ExpertScores,
  amounts: Pick<PruneOptions, ExpertKind>,
): ExpertLists {
  const kept = (kind: ExpertKind): number[][] => {
    const own = scores.map((block) => block[kind]);
    const amount = amounts[kind];
    const k = kind === 'attention' ? config.k_att : config.k_mlp;
    if (!amount) return own.map((router) => router.map((_, e) => e));
    requireAmount(kind, amount, k);
    if ('fraction' in amount && amount.scope === 'model') return keepOfAll(own, amount.fraction, k);
    return own.map((router) => keepBest(router, Math.max(k, router.length - removals(router, amount))));
  };
  const [attention, mlp] = EXPERT_KINDS.map(kept) as [number[][], number[][]];
  return attention.map((experts, block) => ({ attention: experts, mlp: mlp[block] as number[] }));
}

/** How many experts of a router an amount wants to go. */
function removals(scores: readonly number[], amount: PruneAmount): number {
  if ('fraction' in amount) return Math.round(amount.fraction * scores.length);
  if ('count' in amount) return Math.max(0, scores.length - amount.count);
  return scores.filter((score) => score < amount.threshold).length;
}

/** The `count` experts of highest score, the lower index on ties; ascending. */
function keepBest(scores: readonly number[], count: number): number[] {
  return ranked(scores)
    .slice(0, count)
    .sort((a, b) => a - b);
}

/** Experts by falling score. */
export function ranked(scores: readonly number[]): number[] {
  return scores.map((_, e) => e).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
}

/** Removes a part of all experts of all routers, those of least share first, but K of each router stay. */
function keepOfAll(scores: readonly (readonly number[])[], fraction: number, k: number): number[][] {
  const kept = scores.map((router) => new Set(router.keys()));
  const all = scores.flatMap((router, block) =>
    ranked(router)
      .slice(k)
      .map((expert) => ({ block, expert, score: router[expert] as number })),
  );
  all.sort((a, b) => a.score - b.score || b.block - a.block || b.expert - a.expert);
  const total = scores.reduce((sum, router) => sum + router.length, 0);
  for (const { block, expert } of all.slice(0, Math.round(fraction * total))) kept[block]?.delete(expert);
  return kept.map((experts) => [...experts]);
}

function requireAmount(kind: ExpertKind, amount: PruneAmount, k: number): void {
  const inUnit = (value: number): boolean => value >= 0 && value <= 1;
  if ('fraction' in amount && !inUnit(amount.fraction))
    throw new ValueError(`prune: the fraction of ${kind} experts is ${amount.fraction}, expected 0 to 1`);
  if ('threshold' in amount && !inUnit(amount.threshold))
    throw new ValueError(`prune: the threshold of ${kind} experts is ${amount.threshold}, expected 0 to 1`);
  if ('count' in amount && !(Number.isSafeInteger(amount.count) && amount.count >= k)) {
    throw new ShapeError(
      `prune: ${amount.count} ${kind} experts would stay, expected an integer of at least K = ${k}`,
    );
  }
}

function complement(kept: readonly number[], count: number): number[] {
  const stays = new Set(kept);
  return Array.from({ length: count }, (_, e) => e).filter((e) => !stays.has(e));
}

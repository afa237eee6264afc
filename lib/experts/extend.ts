import { add, mulRows, randomNormal, rowNorms, scale } from '../autograd/index.js';
import { ValueError } from '../errors.js';
import type { ModuleFormerConfig } from '../model/config.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import type { AdamWGroupOptions } from '../optimizer/adamw.js';
import type { RowRange, Tensor } from '../tensor.js';
import { expertScores, ranked } from './prune.js';
import {
  expertCounts,
  expertParameters,
  gatingParameterNames,
  parametersOf,
  rewriteRows,
  withExperts,
} from './rebuild.js';
import type { ExpertKind, UsageReport } from './usage.js';

/** How many experts are added, and how they start. */
export interface ExtendOptions {
  /** New attention experts in each block. Default 0. */
  attention?: number;
  /** New MLP experts in each block. Default 0. */
  mlp?: number;
  /**
   * 'random' (the default): weights as in a new model, with a small output projection. 'copy': the experts that are
   * used most, each with its row of the router and a little noise on it.
   */
  init?: 'random' | 'copy';
  /** For 'copy': of the text that the new experts are for. */
  usage?: UsageReport | undefined;
  /**
   * New hidden units of every router, which new experts alone read: with them a router can tell new text from old by
   * more than the old ones' features. For the gate `mlp`; `config.gating_size` grows by it. Default 0.
   */
  gating?: number;
  /** What the random output projections are multiplied by. Default 0.1. */
  outputScale?: number;
  /** For 'copy': standard deviation of the noise, as a part of the row's root mean square. Default 0.01. */
  noise?: number;
  /** Of what is random. Default 0. */
  seed?: number;
}

/**
 * A model with n more experts in each block, behind those that were there; only the new experts, their rows of the
 * routers and new hidden units of the routers are trained (`model.trainable` changes that). The model given stays as it is.
 *
 * The old experts are not changed, but a router's softmax has new terms, so their gates fall: `compareOutputs` measures
 * by how much that changes the output.
 *
 * @throws ValueError for numbers out of range, and when usage is missing or of another model.
 */
export function extendExperts(
  model: ModuleFormerForCausalLM,
  options: ExtendOptions,
): ModuleFormerForCausalLM {
  const { init = 'random', gating = 0, outputScale = 0.1, noise = 0.01, seed = 0 } = options;
  for (const [name, value] of Object.entries({ outputScale, noise })) {
    if (!(value >= 0 && value < Infinity))
      throw new ValueError(`extend: ${name} is ${value}, expected a number of at least 0`);
  }
  const added = addedCounts(options);
  const gating_size = widened(model.config, gating);
  const scores = init === 'copy' ? expertScores(model.config, { ...options, criterion: 'frequency' }) : null;
  const blocks = Array.from({ length: model.config.n_layer }, (_, block) => {
    const sources = (kind: ExpertKind): (number | null)[] => {
      const old = [...Array(expertCounts(model.config, kind)[block]).keys()];
      const best = scores ? ranked(scores[block]?.[kind] ?? []) : [];
      const fresh = Array.from({ length: added[kind] }, (__, i) => best[i % best.length] ?? null);
      return [...old, ...fresh];
    };
    return { attention: sources('attention'), mlp: sources('mlp') };
  });
  const extended = withExperts(model, blocks, { changes: { gating_size }, seed });
  const parameters = parametersOf(extended);
  let stream = 0;
  for (const { name, role, kind, block } of expertParameters(extended.config)) {
    const rows = newRows(model.config, extended.config, kind, block);
    const parameter = parameters.get(name) as Tensor;
    stream++;
    if (init === 'random' && role === 'output') rewriteRows(parameter, rows, (x) => scale(x, outputScale));
    if (init === 'copy' && role === 'router') {
      rewriteRows(parameter, rows, (x) => withNoise(x, noise, [seed, stream]));
    }
  }
  extended.trainable(...newExpertPatterns(extended.config, model.config));
  return extended;
}

function addedCounts({ attention = 0, mlp = 0 }: ExtendOptions): Record<ExpertKind, number> {
  for (const [kind, n] of Object.entries({ attention, mlp })) {
    if (!Number.isSafeInteger(n) || n < 0)
      throw new ValueError(`extend: ${n} new ${kind} experts, expected an integer of at least 0`);
  }
  if (attention + mlp === 0) throw new ValueError('extend: no new experts were asked for');
  return { attention, mlp };
}

function widened({ gate_type, gating_size }: ModuleFormerConfig, gating: number): number {
  if (!Number.isSafeInteger(gating) || gating < 0)
    throw new ValueError(`extend: gating is ${gating}, expected an integer of at least 0`);
  if (gating > 0 && gate_type !== 'mlp')
    throw new ValueError(
      `extend: new hidden units of the routers need the gate mlp, this model's is ${gate_type}`,
    );
  return gating_size + gating;
}

/** Adds noise of that part of each row's root mean square. */
function withNoise(rows: Tensor, noise: number, key: [number, number]): Tensor {
  const { shape, dtype, device } = rows;
  const unit = randomNormal(shape, key, { dtype, device });
  return add(rows, mulRows(unit, scale(rowNorms(rows), noise / Math.sqrt(shape[1] as number))));
}

/** Rows [first, end) of the experts that `config` has in a block beyond those of `base`. */
export function newRows(
  base: ModuleFormerConfig,
  config: ModuleFormerConfig,
  kind: ExpertKind,
  block: number,
): readonly [number, number] {
  return [expertCounts(base, kind)[block] ?? 0, expertCounts(config, kind)[block] ?? 0];
}

/** Rows of a parameter, as a pattern for `model.trainable`. */
export interface NewRows {
  /** The parameter's full name. */
  name: string;
  /** Rows [first, end). */
  rows: RowRange;
}

/**
 * What `model.trainable` takes to train the experts, and their rows of the routers, that a model has beyond those of
 * its base, and nothing else.
 * @throws ValueError when the models do not differ in such experts.
 */
export function newExpertPatterns(config: ModuleFormerConfig, base: ModuleFormerConfig): NewRows[] {
  const patterns: NewRows[] = [];
  if (config.n_layer !== base.n_layer)
    throw new ValueError(`the model has ${config.n_layer} blocks, its base ${base.n_layer}`);
  if (config.gating_size < base.gating_size)
    throw new ValueError(
      `the routers have ${config.gating_size} hidden units, those of the base ${base.gating_size}`,
    );
  const hidden = [base.gating_size, config.gating_size] as const;
  for (const { name, role, kind, block } of expertParameters(config)) {
    const [first, end] = newRows(base, config, kind, block);
    if (end < first)
      throw new ValueError(`block ${block} has ${end} ${kind} experts, its base ${first}: none is new`);
    if (end > first) patterns.push({ name, rows: [first, end] });
    if (end > first && role === 'router' && hidden[1] > hidden[0])
      patterns.push(...gatingParameterNames(kind, block).map((each) => ({ name: each, rows: hidden })));
  }
  if (patterns.length === 0) throw new ValueError('the model has no experts that its base lacks');
  return patterns;
}

/**
 * The trained parameters of an extended model for AdamW. New rows of the routers decay by `routerDecay` towards 0,
 * where a new expert's logit is 0 whatever the token, so that it is chosen only for text that earns it and old text keeps
 * its experts; the new experts themselves decay by `weightDecay`.
 */
export function newExpertGroups(
  model: ModuleFormerForCausalLM,
  { weightDecay = 0.1, routerDecay = 1 }: { weightDecay?: number; routerDecay?: number } = {},
): AdamWGroupOptions[] {
  const routers = new Set(
    [...expertParameters(model.config)].filter(({ role }) => role === 'router').map(({ name }) => name),
  );
  const named = [...model.namedParameters()].filter(([, parameter]) => parameter.requiresGrad);
  return [
    { params: named.filter(([name]) => !routers.has(name)), weightDecay },
    { params: named.filter(([name]) => routers.has(name)), weightDecay: routerDecay },
  ].filter(({ params }) => params.length > 0);
}

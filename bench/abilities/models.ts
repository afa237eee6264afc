// The recipes of the experiments' models.
import { DataLoader, type Batch } from '../../lib/data/loader.js';
import { extendExperts, newExpertGroups } from '../../lib/experts/extend.js';
import { pruneExperts } from '../../lib/experts/prune.js';
import { RouterMemory } from '../../lib/experts/router-memory.js';
import { expertUsage } from '../../lib/experts/usage.js';
import { DenseConfig } from '../../lib/model/dense-config.js';
import { DenseForCausalLM } from '../../lib/model/dense.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { AdamW } from '../../lib/optimizer/adamw.js';
import { cosineSchedule } from '../../lib/optimizer/schedule.js';
import { weightDecayGroups } from '../../lib/training/parameter-groups.js';
import { Trainer, type TrainerOptions } from '../../lib/training/trainer.js';
import { LoraAdapters, rankOfSize } from './lora.js';
import { newTokens, RowsAdamW } from './new-tokens.js';
import { obtain, trained, type Model, type Recipe } from './recipes.js';
import type { Scale } from './scales.js';
import { batchesOf, meanPerplexity, type Part, type Workbench } from './workbench.js';

/** Wider models want smaller steps. */
function lrOf({ scale }: Workbench, width: number): number {
  const { n_embd } = new ModuleFormerConfig(scale.model);
  return Number((scale.lr * Math.sqrt(n_embd / width)).toPrecision(2));
}

/** Ways of balancing the load in pre-training. */
export const BALANCING = {
  mi: { aux_loss_type: 'mi', aux_loss_weight: 0.01 },
  switch: { aux_loss_type: 'switch', aux_loss_weight: 0.01 },
  none: { aux_loss_weight: 0 },
} as const satisfies Record<string, ModuleFormerConfigInit>;
export type Balancing = keyof typeof BALANCING;

export interface Training {
  texts: readonly Part[];
  steps: number;
  lr: number;
  seed: number;
  lossWeights?: TrainerOptions['lossWeights'];
}

/** Tokens of held-in old text whose router features are remembered. */
const REMEMBERED = 2048;

/** The parameters with one row for each token. */
export const TOKEN_TABLES = /^(transformer\.wte|lm_head)\.weight$/;

const BETAS = [0.9, 0.95] as const;

export function scheduleOf({ steps, lr }: Training): ReturnType<typeof cosineSchedule> {
  return cosineSchedule({ lr, warmupSteps: Math.ceil(steps / 20), totalSteps: steps, finalRatio: 0.1 });
}

/** Batches of training text, the same for every model of a seed. */
export async function trainingBatches(bench: Workbench, { texts, seed }: Training): Promise<DataLoader> {
  const { batchSize, sequenceLength } = bench.scale;
  return new DataLoader({ dataset: await bench.texts(texts), batchSize, sequenceLength, seed });
}

async function trainModel<M extends Model>(
  bench: Workbench,
  model: M,
  training: Training,
  {
    optimizer = new AdamW(weightDecayGroups(model, 0.1), { betas: BETAS }),
    regularizer,
  }: Partial<Pick<TrainerOptions, 'optimizer' | 'regularizer'>> = {},
): Promise<M> {
  await new Trainer({
    model,
    train: await trainingBatches(bench, training),
    optimizer,
    schedule: scheduleOf(training),
    steps: training.steps,
    lossWeights: training.lossWeights ?? {},
    regularizer,
  }).run();
  return model;
}

/** What every model depends on. */
function common({ scale, tokenizer }: Workbench): Record<string, unknown> {
  const { batchSize, sequenceLength, heldOut, domains, newDomain, bytes } = scale;
  return { tokenizer: tokenizer.hash, batchSize, sequenceLength, heldOut, domains, newDomain, bytes };
}

/** What a probe has otherwise than the models that are compared. */
export interface Change {
  /** Times the learning rate. */
  lrFactor?: number;
  steps?: number;
  /** Of a dense model. */
  initializerRange?: number;
}

/** A ModuleFormer pre-trained on all domains but the new one. */
export function pretrained(
  bench: Workbench,
  seed: number,
  balancing: Balancing = 'mi',
  change: Change = {},
): Recipe<ModuleFormerForCausalLM> {
  const { scale, tokenizer } = bench;
  const ids = { vocab_size: tokenizer.vocabSize, eos_token_id: tokenizer.eosId ?? null };
  const config = new ModuleFormerConfig({ ...scale.model, ...ids, ...BALANCING[balancing] });
  const training = pretraining(bench, seed, scale.lr, change);
  return {
    name: `ModuleFormer, balancing ${balancing}, seed ${seed}`,
    key: { ...common(bench), config, training },
    train: () => trainModel(bench, new ModuleFormerForCausalLM(config, { seed }), training),
    load: (dir) => ModuleFormerForCausalLM.fromPretrained(dir),
  };
}

/** A dense model with stick-breaking attention, as many blocks and as many heads as a token has in a ModuleFormer. */
export function pretrainedDense(
  bench: Workbench,
  seed: number,
  width: number,
  change: Change = {},
): Recipe<DenseForCausalLM> {
  const { scale, tokenizer } = bench;
  const { n_layer, n_head, k_att } = new ModuleFormerConfig(scale.model);
  const config = new DenseConfig({
    vocab_size: tokenizer.vocabSize,
    eos_token_id: tokenizer.eosId ?? null,
    n_embd: width,
    n_layer,
    n_head: k_att * n_head,
    ffd_hidden: 4 * width,
    initializer_range: change.initializerRange ?? Number((1 / Math.sqrt(width)).toPrecision(2)),
    attention_type: 'stickbreaking',
    use_parallel_residual: false,
  });
  const training = pretraining(bench, seed, lrOf(bench, width), change);
  return {
    name: `dense ${width}, seed ${seed}`,
    key: { ...common(bench), config, training },
    train: () => trainModel(bench, new DenseForCausalLM(config, { seed }), training),
    load: (dir) => DenseForCausalLM.fromPretrained(dir),
  };
}

function pretraining(
  { scale, whole }: Workbench,
  seed: number,
  lr: number,
  { lrFactor = 1, steps = scale.steps }: Change,
): Training {
  return { texts: whole(...scale.domains), steps, lr: lr * lrFactor, seed };
}

/** Rising. */
export function denseWidths({ dense }: Scale): number[] {
  return Object.keys(dense).map(Number);
}

/** The dense model whose perplexity on the domains of pre-training is nearest, of those that have the most seeds. */
export async function denseOfEqualQuality(bench: Workbench): Promise<number> {
  const { dense, domains, seeds } = bench.scale;
  const quality = async (recipe: Recipe): Promise<number> =>
    Math.log(meanPerplexity((await trained(bench, recipe)).perplexities, domains));
  const wanted = await quality(pretrained(bench, seeds[0] as number));
  const most = Math.max(...Object.values(dense).map(({ length }) => length));
  let best = { width: NaN, distance: Infinity };
  for (const width of denseWidths(bench.scale)) {
    const own = dense[width] ?? [];
    if (own.length < most) continue;
    const distance = Math.abs((await quality(pretrainedDense(bench, own[0] as number, width))) - wanted);
    if (distance < best.distance) best = { width, distance };
  }
  return best.width;
}

/** All parameters of a pre-trained model, trained further. */
export function fineTuned<M extends Model>(bench: Workbench, base: Recipe<M>, training: Training): Recipe<M> {
  return {
    name: `${base.name}, fine-tuned on ${namesOf(training)}${training.lossWeights ? ` ${JSON.stringify(training.lossWeights)}` : ''}`,
    key: { base: base.key, training },
    train: async () => trainModel(bench, await obtain(bench, base), training),
    load: (dir) => base.load(dir),
  };
}

/** The half of a model's experts that has the least gate mass in training text goes; what stays is trained further. */
export function prunedAndTuned(
  bench: Workbench,
  base: Recipe<ModuleFormerForCausalLM>,
  training: Training,
): Recipe<ModuleFormerForCausalLM> {
  return {
    name: `${base.name}, pruned by half, tuned on`,
    key: { base: base.key, pruned: 'half by gateMass', training },
    train: async () => {
      const whole = await obtain(bench, base);
      const text = await batchesOf(await bench.texts(training.texts), 'train', bench.scale);
      const usage = await expertUsage(whole, { text });
      const half = { fraction: 0.5, scope: 'model' } as const;
      const { model } = pruneExperts(whole, { criterion: 'gateMass', attention: half, mlp: half, usage });
      whole.dispose();
      return trainModel(bench, model, training);
    },
    load: (dir) => base.load(dir),
  };
}

/** A dense model with low-rank adapters of about `size` parameters, which are trained alone and then merged. */
export function withLora(
  bench: Workbench,
  base: Recipe<DenseForCausalLM>,
  training: Training,
  size: number,
): Recipe<DenseForCausalLM> {
  return {
    name: `${base.name}, low-rank adapters on ${namesOf(training)}`,
    key: { base: base.key, training, size },
    train: async () => {
      const model = await obtain(bench, base);
      const adapters = new LoraAdapters(model, { rank: rankOfSize(model, size), seed: training.seed });
      await adapters.train(await trainingBatches(bench, training), {
        steps: training.steps,
        schedule: scheduleOf(training),
        optimizer: new AdamW(adapters.parameters(), { betas: BETAS, weightDecay: 0 }),
      });
      adapters.dispose();
      return model;
    },
    load: (dir) => base.load(dir),
  };
}

/** How new experts are trained alone. */
export interface NewExpertsTraining extends Training {
  /** Of the new rows of the routers. */
  routerDecay: number;
  /** The weight of the penalty on routing remembered old text otherwise; 0 is none. */
  memory: number;
  /** The part of the steps after which the penalty begins; its weight then rises to the end. */
  memoryFrom?: number;
}

/** What is new in a model. */
export interface Extension {
  experts: { attention: number; mlp: number };
  /** Whether they start as copies of the experts that new text uses most. */
  copies: boolean;
  /** New hidden units of the routers. */
  gating: number;
  /**
   * Rows of the embedding and the head are trained too for tokens of which at least this part of the occurrences is in
   * new text; 0: of none.
   */
  tokens: number;
}

export function withNewExperts(
  bench: Workbench,
  base: Recipe<ModuleFormerForCausalLM>,
  { experts, copies, gating, tokens }: Extension,
  training: NewExpertsTraining,
): Recipe<ModuleFormerForCausalLM> {
  const { seed, memory, memoryFrom = null, steps } = training;
  return {
    name: `${base.name}, new experts on ${namesOf(training)}`,
    key: {
      base: base.key,
      training,
      newExperts: experts,
      ...(memory > 0 ? { remembered: REMEMBERED } : {}),
      ...(tokens > 0 ? { newTokens: tokens } : {}),
      ...(gating > 0 ? { gating } : {}),
      ...(copies ? { copies } : {}),
    },
    train: async () => {
      const old = await obtain(bench, base);
      const usage = copies ? await expertUsage(old, { new: await newText(bench) }) : undefined;
      const model = extendExperts(old, { ...experts, gating, init: copies ? 'copy' : 'random', usage, seed });
      const optimizer = await newExpertOptimizer(bench, model, tokens, training);
      const remembered = memory > 0 ? await rememberOldText(bench, old) : null;
      let step = 0;
      const weight = (): number =>
        memoryFrom === null ? memory : (memory * Math.max(0, step++ / steps - memoryFrom)) / (1 - memoryFrom);
      const regularizer = remembered ? () => remembered.penalty(model, weight()) : undefined;
      await trainModel(bench, model, training, { optimizer, regularizer });
      remembered?.dispose();
      old.dispose();
      return model;
    },
    load: (dir) => base.load(dir),
  };
}

async function newExpertOptimizer(
  bench: Workbench,
  model: ModuleFormerForCausalLM,
  tokensFrom: number,
  { routerDecay }: NewExpertsTraining,
): Promise<AdamW> {
  const groups = newExpertGroups(model, { weightDecay: 0.1, routerDecay });
  if (tokensFrom === 0) return new AdamW(groups, { betas: BETAS });
  const tables = [...model.namedParameters()].filter(([name]) => TOKEN_TABLES.test(name));
  for (const [, table] of tables) table.requiresGrad = true;
  return new RowsAdamW(
    [...groups, { params: tables, weightDecay: 0 }],
    { betas: BETAS },
    tables.map(([, table]) => table),
    await newTokens(bench, tokensFrom),
  );
}

async function newText(bench: Workbench): Promise<Batch[]> {
  return batchesOf(await bench.texts(bench.whole(bench.scale.newDomain)), 'train', bench.scale);
}

/** Of training text of the old domains. */
async function rememberOldText(bench: Workbench, base: ModuleFormerForCausalLM): Promise<RouterMemory> {
  const old = await bench.texts(bench.whole(...bench.scale.domains));
  return RouterMemory.of(base, await batchesOf(old, 'train', bench.scale), { tokens: REMEMBERED });
}

function namesOf({ texts }: Training): string {
  return texts.map(({ domain }) => domain).join(', ');
}

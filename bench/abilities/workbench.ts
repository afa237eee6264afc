// What the experiments share: domains with one tokenizer, training, measuring.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { TextDataset } from '../../lib/data/dataset.js';
import { DataLoader, type Batch } from '../../lib/data/loader.js';
import { Tokenizer } from '../../lib/data/tokenizer.js';
import { trainTokenizer } from '../../lib/data/train-tokenizer.js';
import { withExperts } from '../../lib/experts/rebuild.js';
import type { CausalLM, CausalLMConfig } from '../../lib/model/causal-lm.js';
import { DenseConfig } from '../../lib/model/dense-config.js';
import { DenseForCausalLM } from '../../lib/model/dense.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { AdamW, type AdamWGroupOptions } from '../../lib/optimizer/adamw.js';
import { cosineSchedule } from '../../lib/optimizer/schedule.js';
import { evaluate } from '../../lib/training/evaluate.js';
import { weightDecayGroups } from '../../lib/training/parameter-groups.js';
import { Trainer, type TrainerOptions } from '../../lib/training/trainer.js';
import { corpusFile, type Domain } from './corpora.js';

/** The size of an experiment. */
export interface Scale {
  name: 'quick' | 'full';
  domains: readonly [Domain, Domain, Domain, ...Domain[]];
  /** Of text in each domain. */
  bytes: number;
  vocabSize: number;
  sequenceLength: number;
  batchSize: number;
  /** Of pre-training, and of fine-tuning. */
  steps: number;
  fineTuningSteps: number;
  lr: number;
  /** Held-out tokens of each domain that are measured. */
  heldOut: number;
  model: ModuleFormerConfigInit;
  /** Of dense models to compare with, rising; their MLPs are four times as wide. */
  denseWidths: readonly number[];
  /** Of the one that learns a new language, of about the ModuleFormer's quality. */
  denseWidth: number;
  /** In each block, for extension. */
  newExperts: { attention: number; mlp: number };
  seeds: readonly number[];
}

export const quick: Scale = {
  name: 'quick',
  domains: ['english', 'german', 'go'],
  bytes: 1_000_000,
  vocabSize: 1024,
  sequenceLength: 64,
  batchSize: 8,
  steps: 300,
  fineTuningSteps: 120,
  lr: 3e-3,
  heldOut: 8192,
  model: {
    n_embd: 64,
    n_layer: 2,
    n_head: 2,
    att_hidden: 64,
    ffd_hidden: 64,
    gating_size: 32,
    n_att_experts: 4,
    n_mlp_experts: 8,
  },
  denseWidths: [64, 128, 192],
  denseWidth: 128,
  newExperts: { attention: 2, mlp: 4 },
  seeds: [0],
};

export const full: Scale = {
  name: 'full',
  domains: ['english', 'german', 'japanese', 'go', 'python'],
  bytes: 5_000_000,
  vocabSize: 8192,
  sequenceLength: 256,
  batchSize: 8,
  steps: 1200,
  fineTuningSteps: 300,
  lr: 1e-3,
  heldOut: 32_768,
  model: {
    n_embd: 256,
    n_layer: 4,
    n_head: 4,
    att_hidden: 256,
    ffd_hidden: 256,
    gating_size: 128,
    n_att_experts: 8,
    n_mlp_experts: 16,
  },
  denseWidths: [128, 192, 256, 384],
  denseWidth: 256,
  newExperts: { attention: 4, mlp: 8 },
  seeds: [0, 1, 2],
};

/** Domains as data sets with one tokenizer. */
export interface Workbench {
  scale: Scale;
  tokenizer: Tokenizer;
  /** Of single domains. */
  datasets: ReadonlyMap<Domain, TextDataset>;
  /** Held-out batches of each domain. */
  heldOut: Readonly<Record<string, Batch[]>>;
  /** The training texts of several domains as one data set. */
  mixture(domains: readonly Domain[]): Promise<TextDataset>;
}

export async function openWorkbench(scale: Scale, cache = '.cache/abilities'): Promise<Workbench> {
  const files = new Map<Domain, string>();
  for (const domain of scale.domains) files.set(domain, await corpusFile(domain, scale.bytes, cache));
  const dir = path.join(cache, `${scale.name}-${scale.domains.join('-')}`);
  await mkdir(dir, { recursive: true });
  const tokenizer = await openTokenizer(path.join(dir, 'tokenizer'), [...files.values()], scale.vocabSize);
  const build = (name: string, domains: readonly Domain[]): Promise<TextDataset> =>
    TextDataset.build({
      files: domains.map((domain) => files.get(domain) as string),
      tokenizer,
      outDir: path.join(dir, name),
      validationFraction: 0.1,
    });
  const datasets = new Map<Domain, TextDataset>();
  const heldOut: Record<string, Batch[]> = {};
  for (const domain of scale.domains) {
    const dataset = await build(domain, [domain]);
    datasets.set(domain, dataset);
    heldOut[domain] = await heldOutBatches(dataset, scale);
  }
  return {
    scale,
    tokenizer,
    datasets,
    heldOut,
    mixture: (domains) => build(`mix-${domains.join('-')}`, domains),
  };
}

async function openTokenizer(dir: string, files: string[], vocabSize: number): Promise<Tokenizer> {
  try {
    return await Tokenizer.fromFile(dir);
  } catch {
    const tokenizer = await trainTokenizer({ files, vocabSize });
    await tokenizer.save(dir);
    return tokenizer;
  }
}

async function heldOutBatches(
  dataset: TextDataset,
  { batchSize, sequenceLength, heldOut }: Scale,
): Promise<Batch[]> {
  const batches: Batch[] = [];
  const loader = new DataLoader({ dataset, split: 'validation', batchSize, sequenceLength, shuffle: true });
  for await (const batch of loader) {
    batches.push(batch);
    if (batches.length * batchSize * sequenceLength >= heldOut) break;
  }
  return batches;
}

export function newModel(
  { scale, tokenizer }: Workbench,
  seed: number,
  fields: ModuleFormerConfigInit = {},
): ModuleFormerForCausalLM {
  const ids = { vocab_size: tokenizer.vocabSize, eos_token_id: tokenizer.eosId ?? null };
  const config = new ModuleFormerConfig({ aux_loss_weight: 0.01, ...scale.model, ...ids, ...fields });
  return new ModuleFormerForCausalLM(config, { seed });
}

/** A dense model with stick-breaking attention, of as many blocks. */
export function newDense({ scale, tokenizer }: Workbench, seed: number, width: number): DenseForCausalLM {
  const { n_layer, n_head } = scale.model;
  const config = new DenseConfig({
    vocab_size: tokenizer.vocabSize,
    eos_token_id: tokenizer.eosId ?? null,
    n_embd: width,
    ffd_hidden: 4 * width,
    attention_type: 'stickbreaking',
    rotary_pct: 0,
    use_parallel_residual: false,
    ...(n_layer === undefined ? {} : { n_layer }),
    ...(n_head === undefined ? {} : { n_head }),
  });
  return new DenseForCausalLM(config, { seed });
}

/** Trains in place; returns tokens per second. */
export async function train(
  model: CausalLM<CausalLMConfig>,
  dataset: TextDataset,
  { scale }: Workbench,
  options: { steps: number; seed: number; lr?: number } & Pick<TrainerOptions, 'lossWeights'> & {
      groups?: AdamWGroupOptions[];
    },
): Promise<number> {
  const { steps, seed, lr = scale.lr, lossWeights = {}, groups = weightDecayGroups(model, 0.1) } = options;
  const { batchSize, sequenceLength } = scale;
  const { tokens, elapsedSeconds } = await new Trainer({
    model,
    train: new DataLoader({ dataset, batchSize, sequenceLength, seed }),
    optimizer: new AdamW(groups, { betas: [0.9, 0.95] }),
    schedule: cosineSchedule({ lr, warmupSteps: Math.ceil(steps / 20), totalSteps: steps, finalRatio: 0.1 }),
    steps,
    lossWeights,
  }).run();
  return tokens / elapsedSeconds;
}

/** The perplexity on the held-out text of each domain. */
export async function perplexities(
  model: CausalLM<CausalLMConfig>,
  { heldOut }: Workbench,
): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const [domain, batches] of Object.entries(heldOut)) {
    found[domain] = (await evaluate(model, batches)).perplexity;
  }
  return found;
}

/** The geometric mean over domains: exp of the mean loss, each domain counting the same. */
export function meanPerplexity(found: Readonly<Record<string, number>>, domains: readonly string[]): number {
  const logs = domains.map((domain) => Math.log(found[domain] as number));
  return Math.exp(logs.reduce((total, value) => total + value, 0) / logs.length);
}

/** A copy of a model, to be trained apart. */
export function copyOf(model: ModuleFormerForCausalLM): ModuleFormerForCausalLM {
  const all = (counts: readonly number[], block: number): number[] => [...Array(counts[block]).keys()];
  const { attentionExperts, mlpExperts } = model.config;
  return withExperts(
    model,
    attentionExperts.map((_, block) => ({
      attention: all(attentionExperts, block),
      mlp: all(mlpExperts, block),
    })),
  );
}

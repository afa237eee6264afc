import { z } from 'zod';
import {
  activation,
  configError,
  count,
  expertCounts,
  nonNegative,
  parseFields,
  positive,
  pretrainedFields,
  probability,
  readConfig,
  size,
  toJsonFields,
  tokenId,
  withFields,
} from './config-fields.js';

export const GATE_TYPES = ['mlp', 'linear', 'gmm'] as const;
export const AUX_LOSS_TYPES = ['mi', 'switch'] as const;
export const PROBLEM_TYPES = [
  'regression',
  'single_label_classification',
  'multi_label_classification',
] as const;

/** What transformers assumes, and does not write. */
const DEFAULT_NUM_LABELS = 2;

const schema = z.strictObject({
  ...pretrainedFields,
  /** What transformers goes by. */
  model_type: z.literal('moduleformer').default('moduleformer'),
  /** V, the number of token ids. */
  vocab_size: size().default(50295),
  /** The context in training, for information: nothing limits the length of a sequence. */
  block_size: size().default(512),
  /** The cached context of the reference, for information. */
  history_length: count().default(512),
  /** D, the width of the residual stream. */
  n_embd: size().default(1024),
  /** L, the number of blocks. */
  n_layer: size().default(24),
  /** H, heads inside one attention expert. */
  n_head: size().default(8),
  /** A = H * C, the width of one attention expert. */
  att_hidden: size().default(512),
  /** F, the width of one MLP expert. */
  ffd_hidden: size().default(2048),
  /** Of the MLP experts; the router's is always the exact GELU. */
  activation_function: activation().default('gelu_new'),
  /** Dropout on the outputs of both sublayers. */
  resid_pdrop: probability().default(0),
  /** Dropout after the embedding. */
  embd_pdrop: probability().default(0),
  /** Dropout inside the routers of gate type `mlp`. */
  moe_pdrop: probability().default(0),
  /** How many of a token's experts are drawn at random while training instead of being the best. */
  sample_topk: count().default(0),
  /** G, the hidden width of routers of gate types `mlp` and `gmm`. */
  gating_size: size().default(256),
  /** E of attention: one number, or one for each block. */
  n_att_experts: expertCounts().default(32),
  /** K of attention. */
  k_att: size().default(2),
  /** E of the MLP: one number, or one for each block. */
  n_mlp_experts: expertCounts().default(32),
  /** K of the MLP. */
  k_mlp: size().default(2),
  /** Kept, but without effect, as in the reference: the layer norms use 1e-5. */
  layer_norm_epsilon: positive().default(1e-5),
  /** Standard deviation of the initial Linear and Embedding weights. */
  initializer_range: nonNegative().default(0.02),
  /** Begins a text; nothing in this package puts it there. */
  bos_token_id: tokenId().default(50256),
  /** Ends a text; generation stops at it. */
  eos_token_id: tokenId().default(50256),
  /** Tells a classifier where a row ends; attention goes by masks alone. */
  pad_token_id: tokenId().default(null),
  /** How the routers are balanced: mutual information, or the loss of Switch Transformers. */
  aux_loss_type: z.enum(AUX_LOSS_TYPES).default('mi'),
  /** What the balancing loss counts in the loss. */
  aux_loss_weight: nonNegative().default(0),
  /** What computes router logits: two layers (`mlp`), one (`linear`), or cosines to centroids (`gmm`). */
  gate_type: z.enum(GATE_TYPES).default('mlp'),
  /** Another name of the only attention there is. */
  att_func: z.literal('stickbreaking').optional(),
  /** Whether a token attends to itself. */
  attend_current: z.boolean().default(true),
  /** Whether what is left of the stick goes to the token's own value. */
  attend_remainder: z.boolean().default(false),
  /** Outputs of a classification head; without it as many as `id2label` has, or 2. */
  num_labels: size().optional(),
  /** The loss of a classifier; null: decided by the labels. */
  problem_type: z.enum(PROBLEM_TYPES).nullable().default(null),
});

/** What the constructor takes: any of the fields of a config.json, in their spelling. */
export type ModuleFormerConfigInit = Readonly<z.input<typeof schema>>;

/** All fields, with the defaults filled in. */
export type ModuleFormerConfigFields = z.output<typeof schema> & { num_labels: number };

/**
 * The shape and settings of a ModuleFormer: the content of its `config.json`, field for field. What is missing takes
 * the reference's default; a field that is unknown, or a value that is impossible, is an error. Instances never change.
 */
export class ModuleFormerConfig extends withFields<ModuleFormerConfigFields>() {
  /** @throws {ConfigError} that names every field at fault, what is expected and what was given. */
  constructor(init: ModuleFormerConfigInit = {}) {
    const fields = parseFields('ModuleFormerConfig', schema, init);
    const labels = fields.id2label == null ? undefined : Object.keys(fields.id2label).length;
    const problems = [...conflicts(fields), ...labelConflicts(fields.num_labels, labels)];
    if (problems.length > 0) throw configError('ModuleFormerConfig', problems);
    super({ ...fields, num_labels: fields.num_labels ?? labels ?? DEFAULT_NUM_LABELS });
    Object.freeze(this);
  }

  /**
   * Reads `config.json` in a checkpoint's directory, or a .json file.
   *
   * @throws {ConfigError} when it is missing, damaged or refused; the file is named.
   */
  static async fromFile(dir: string): Promise<ModuleFormerConfig> {
    return readConfig(dir, (fields) => new ModuleFormerConfig(fields));
  }

  /** C, the width of a head. */
  get headSize(): number {
    return this.att_hidden / this.n_head;
  }

  /** Whether keys and values are the normalised input itself, without projections (A = D and H = 1). */
  get hasIdentityKeys(): boolean {
    return this.att_hidden === this.n_embd && this.n_head === 1;
  }

  /** E of the attention in each block, [L]. */
  get attentionExperts(): readonly number[] {
    return perBlock(this.n_att_experts, this.n_layer);
  }

  /** E of the MLP in each block, [L]. */
  get mlpExperts(): readonly number[] {
    return perBlock(this.n_mlp_experts, this.n_layer);
  }

  /** The content of config.json: all fields, those that transformers added included. */
  toJSON(): Record<string, unknown> {
    const { num_labels: labels, ...fields } = toJsonFields(this);
    const implied = fields['id2label'] != null || labels === DEFAULT_NUM_LABELS;
    return implied ? fields : toJsonFields({ ...fields, num_labels: labels });
  }
}

function perBlock(counts: number | readonly number[], blocks: number): readonly number[] {
  return typeof counts === 'number' ? Array<number>(blocks).fill(counts) : counts;
}

/** The shortest form of a field with one number per block: the number itself where all are equal. */
export function collapseCounts(counts: readonly number[]): number | number[] {
  const [first = 0] = counts;
  return counts.every((each) => each === first) ? first : [...counts];
}

function conflicts(fields: z.output<typeof schema>): string[] {
  const { att_hidden, n_head, sample_topk } = fields;
  const problems: string[] = [];
  if (att_hidden % n_head !== 0) {
    problems.push(`att_hidden (${att_hidden}) must be a multiple of n_head (${n_head})`);
  }
  for (const [k, experts] of [
    ['k_att', 'n_att_experts'],
    ['k_mlp', 'n_mlp_experts'],
  ] as const) {
    problems.push(...countConflicts(k, fields[k], experts, fields[experts], fields.n_layer));
    if (sample_topk > fields[k])
      problems.push(`sample_topk (${sample_topk}) must be at most ${k} (${fields[k]})`);
  }
  return problems;
}

function countConflicts(
  kName: string,
  k: number,
  name: string,
  counts: number | readonly number[],
  blocks: number,
): string[] {
  if (typeof counts === 'number') {
    return k > counts ? [`${kName} (${k}) must be at most ${name} (${counts})`] : [];
  }
  if (counts.length !== blocks) {
    return [`${name} has ${counts.length} numbers, expected one for each of the n_layer (${blocks}) blocks`];
  }
  return counts.flatMap((count, block) =>
    k > count ? [`${kName} (${k}) must be at most ${name} of block ${block} (${count})`] : [],
  );
}

function labelConflicts(given: number | undefined, named: number | undefined): string[] {
  if (named === 0) return ['id2label names no label'];
  if (given === undefined || named === undefined || given === named) return [];
  return [`num_labels (${given}) must be the number of labels in id2label (${named})`];
}

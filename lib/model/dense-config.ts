import { z } from 'zod';
import {
  activation,
  configError,
  fraction,
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

export const ATTENTION_TYPES = ['softmax', 'stickbreaking'] as const;

/** Of GPT-NeoX. Stick-breaking attention knows positions by itself. */
const DEFAULT_ROTARY_PCT = { softmax: 0.25, stickbreaking: 0 } as const;

const schema = z.strictObject({
  ...pretrainedFields,
  /** Tells a dense checkpoint from a ModuleFormer. */
  model_type: z.literal('moduleformer-dense').default('moduleformer-dense'),
  /** V, the number of token ids. */
  vocab_size: size().default(50304),
  /** The context in training, for information. */
  block_size: size().default(2048),
  /** D, the width of the residual stream. */
  n_embd: size().default(1024),
  /** L, the number of blocks. */
  n_layer: size().default(24),
  /** H, the number of heads; each is D / H wide. */
  n_head: size().default(16),
  /** F, the width of the MLP; 4 * D when missing. */
  ffd_hidden: size().optional(),
  /** Of the MLP. */
  activation_function: activation().default('gelu'),
  /** Softmax, or stick-breaking as in ModuleFormer. */
  attention_type: z.enum(ATTENTION_TYPES).default('softmax'),
  /** Which part of a head's width is rotated by position; 0.25 for softmax and 0 for stick-breaking when missing. */
  rotary_pct: fraction().optional(),
  /** Base of the wavelengths of the rotation. */
  rotary_base: positive().default(10000),
  /** `x + attention(LN1(x)) + mlp(LN2(x))` as in Pythia, instead of one sublayer after the other. */
  use_parallel_residual: z.boolean().default(true),
  /** Added to the variance in every norm. */
  layer_norm_epsilon: positive().default(1e-5),
  /** Dropout on the outputs of both sublayers. */
  resid_pdrop: probability().default(0),
  /** Dropout after the embedding. */
  embd_pdrop: probability().default(0),
  /** Standard deviation of the initial Linear and Embedding weights. */
  initializer_range: nonNegative().default(0.02),
  /** Begins a text; nothing in this package puts it there. */
  bos_token_id: tokenId().default(0),
  /** Ends a text; generation stops at it. */
  eos_token_id: tokenId().default(0),
  /** Kept; padding is what the mask says. */
  pad_token_id: tokenId().default(null),
});

/** What the constructor takes: any of the fields of a config.json, in their spelling. */
export type DenseConfigInit = Readonly<z.input<typeof schema>>;

/** All fields, with the defaults filled in. */
export type DenseConfigFields = z.output<typeof schema> & { ffd_hidden: number; rotary_pct: number };

/**
 * The shape and settings of a dense transformer with the layout of GPT-NeoX and Pythia, the baseline that a mixture of
 * experts is compared with. Strict as `ModuleFormerConfig` is; instances never change.
 */
export class DenseConfig extends withFields<DenseConfigFields>() {
  /** @throws {ConfigError} that names every field at fault, what is expected and what was given. */
  constructor(init: DenseConfigInit = {}) {
    const fields = parseFields('DenseConfig', schema, init);
    const ffd_hidden = fields.ffd_hidden ?? 4 * fields.n_embd;
    const rotary_pct = fields.rotary_pct ?? DEFAULT_ROTARY_PCT[fields.attention_type];
    const problems = conflicts({ ...fields, rotary_pct });
    if (problems.length > 0) throw configError('DenseConfig', problems);
    super({ ...fields, ffd_hidden, rotary_pct });
    Object.freeze(this);
  }

  /**
   * Reads `config.json` in a checkpoint's directory, or a .json file.
   *
   * @throws {ConfigError} when it is missing, damaged or refused; the file is named.
   */
  static async fromFile(dir: string): Promise<DenseConfig> {
    return readConfig(dir, (fields) => new DenseConfig(fields));
  }

  /** C, the width of a head. */
  get headSize(): number {
    return this.n_embd / this.n_head;
  }

  /** How many of a head's channels, the first ones, are rotated by position; even. */
  get rotarySize(): number {
    return rotarySize(this);
  }

  /** The content of config.json: all fields, those that transformers added included. */
  toJSON(): Record<string, unknown> {
    return toJsonFields(this);
  }
}

interface Rotary {
  readonly n_embd: number;
  readonly n_head: number;
  readonly rotary_pct: number;
}

function rotarySize({ n_embd, n_head, rotary_pct }: Rotary): number {
  return Math.floor((n_embd / n_head) * rotary_pct);
}

function conflicts(fields: z.output<typeof schema> & Rotary): string[] {
  const { n_embd, n_head, rotary_pct, attention_type } = fields;
  if (n_embd % n_head !== 0) return [`n_embd (${n_embd}) must be a multiple of n_head (${n_head})`];
  if (attention_type === 'stickbreaking' && rotary_pct !== 0) {
    return [`rotary_pct (${rotary_pct}) must be 0: stick-breaking attention rotates nothing`];
  }
  const rotated = rotarySize(fields);
  if (rotated % 2 !== 0) {
    return [
      `rotary_pct (${rotary_pct}) must rotate pairs, but gives ${rotated} of ${n_embd / n_head} channels`,
    ];
  }
  return [];
}

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../errors.js';
import { parseStrictJson } from '../io/strict-json.js';

/** Ids and dimensions are 32-bit integers in the kernels. */
const MAX_INT32 = 2 ** 31 - 1;

/** A dimension or a count of at least one. */
export const size = () => integer(1, 'a positive integer');

/** A count that may be zero. */
export const count = () => integer(0, 'a non-negative integer');

/** A positive count, or a list of them, one for each block. */
export const expertCounts = () => {
  const expected = 'a positive integer, or a list with one for each block';
  const error = `expected ${expected}`;
  return z.union([integer(1, expected), z.array(size()).min(1, { error })], { error });
};

/** A dropout probability in [0, 1). */
export const probability = () => number('a number in [0, 1)', (value) => value >= 0 && value < 1);

/** A part of a whole, in [0, 1]. */
export const fraction = () => number('a number in [0, 1]', (value) => value >= 0 && value <= 1);

/** A finite number that is not negative. */
export const nonNegative = () => number('a non-negative number', (value) => value >= 0);

/** A finite number above zero. */
export const positive = () => number('a positive number', (value) => value > 0);

/** A special token's id. It may lie outside the vocabulary: such a token never occurs. */
export const tokenId = () => integer(-MAX_INT32, 'an integer or null').nullable();

export const ACTIVATIONS = ['gelu_new', 'gelu', 'silu', 'relu'] as const;

/** `gelu_new` is the tanh form, `gelu` the exact one. */
export const activation = () => z.enum(ACTIVATIONS);

const json = () => z.json().optional();

function integer(least: number, expected: string) {
  const error = `expected ${expected}`;
  return z
    .int({ error })
    .min(least, { error })
    .max(MAX_INT32, { error: `${error} of 32 bits` });
}

function number(expected: string, isLegal: (value: number) => boolean) {
  const error = `expected ${expected}`;
  return z.number({ error }).refine(isLegal, { error });
}

/**
 * What transformers writes into a config.json beyond a model's own fields, over the years. Most say nothing about the
 * model and are kept as they are; those that would make it another model must have the value that makes it this one.
 */
export const pretrainedFields = {
  /** The class that transformers would load; set when a model is saved. */
  architectures: z.array(z.string()).nullable().optional(),
  /** Must be 0: the reference never applies dropout to attention weights. */
  attn_pdrop: z
    .literal(0, { error: 'the reference never applies dropout to attention weights, so it must be 0' })
    .default(0),
  /** Must be false: the LM head has weights of its own. */
  tie_word_embeddings: z
    .literal(false, { error: 'the LM head has weights of its own, so it must be false' })
    .default(false),
  /** Must be false. */
  is_encoder_decoder: z.literal(false, { error: 'there is no encoder, so it must be false' }).optional(),
  /** Must be false. */
  add_cross_attention: z.literal(false, { error: 'there is no encoder, so it must be false' }).optional(),
  /** Must be {}. */
  pruned_heads: z.strictObject({}, { error: 'no heads can be pruned, so it must be {}' }).optional(),
  /** Names of a classifier's labels by their number; gives `num_labels`. */
  id2label: z
    .record(z.string().regex(/^[0-9]+$/), z.string())
    .nullable()
    .optional(),
  /** The inverse of `id2label`; kept, without effect. */
  label2id: z.record(z.string(), z.int()).nullable().optional(),
  /** Of transformers: kept, without effect. */
  _attn_implementation: json(),
  /** Of transformers: kept, without effect. */
  _attn_implementation_autoset: json(),
  /** Of transformers: kept, without effect. */
  _attn_implementation_internal: json(),
  /** Of transformers: kept, without effect. */
  _commit_hash: json(),
  /** Of transformers: kept, without effect. */
  _experts_implementation: json(),
  /** Of transformers: kept, without effect. */
  _experts_implementation_internal: json(),
  /** Of transformers: kept, without effect. */
  _name_or_path: json(),
  /** Of transformers: kept, without effect. */
  attn_implementation: json(),
  /** Of transformers: kept, without effect. */
  auto_map: json(),
  /** Of transformers: kept, without effect. */
  bad_words_ids: json(),
  /** Of transformers: kept, without effect. */
  begin_suppress_tokens: json(),
  /** Of transformers: kept, without effect. */
  chunk_size_feed_forward: json(),
  /** Of transformers: kept, without effect. */
  cross_attention_hidden_size: json(),
  /** Of transformers: kept, without effect. */
  custom_pipelines: json(),
  /** Of transformers: kept, without effect. */
  decoder_start_token_id: json(),
  /** Of transformers: kept, without effect. */
  diversity_penalty: json(),
  /** Of transformers: kept, without effect. */
  do_sample: json(),
  /** Of transformers: kept, without effect. */
  dtype: json(),
  /** Of transformers: kept, without effect. */
  early_stopping: json(),
  /** Of transformers: kept, without effect. */
  encoder_no_repeat_ngram_size: json(),
  /** Of transformers: kept, without effect. */
  exponential_decay_length_penalty: json(),
  /** Of transformers: kept, without effect. */
  finetuning_task: json(),
  /** Of transformers: kept, without effect. */
  forced_bos_token_id: json(),
  /** Of transformers: kept, without effect. */
  forced_eos_token_id: json(),
  /** Of transformers: kept, without effect. */
  gradient_checkpointing: json(),
  /** Of transformers: kept, without effect. */
  is_decoder: json(),
  /** Of transformers: kept, without effect. */
  length_penalty: json(),
  /** Of transformers: kept, without effect. */
  max_length: json(),
  /** Of transformers: kept, without effect. */
  min_length: json(),
  /** Of transformers: kept, without effect. */
  n_ctx: json(),
  /** Of transformers: kept, without effect. */
  name_or_path: json(),
  /** Of transformers: kept, without effect. */
  no_repeat_ngram_size: json(),
  /** Of transformers: kept, without effect. */
  num_beam_groups: json(),
  /** Of transformers: kept, without effect. */
  num_beams: json(),
  /** Of transformers: kept, without effect. */
  num_return_sequences: json(),
  /** Of transformers: kept, without effect. */
  output_attentions: json(),
  /** Of transformers: kept, without effect. */
  output_hidden_states: json(),
  /** Of transformers: kept, without effect. */
  output_scores: json(),
  /** Of transformers: kept, without effect. */
  prefix: json(),
  /** Of transformers: kept, without effect. */
  remove_invalid_values: json(),
  /** Of transformers: kept, without effect. */
  repetition_penalty: json(),
  /** Of transformers: kept, without effect. */
  return_dict: json(),
  /** Of transformers: kept, without effect. */
  return_dict_in_generate: json(),
  /** Of transformers: kept, without effect. */
  sep_token_id: json(),
  /** Of transformers: kept, without effect. */
  suppress_tokens: json(),
  /** Of transformers: kept, without effect. */
  task_specific_params: json(),
  /** Of transformers: kept, without effect. */
  temperature: json(),
  /** Of transformers: kept, without effect. */
  tf_legacy_loss: json(),
  /** Of transformers: kept, without effect. */
  tie_encoder_decoder: json(),
  /** Of transformers: kept, without effect. */
  tokenizer_class: json(),
  /** Of transformers: kept, without effect. */
  top_k: json(),
  /** Of transformers: kept, without effect. */
  top_p: json(),
  /** Of transformers: kept, without effect. */
  torch_dtype: json(),
  /** Of transformers: kept, without effect. */
  torchscript: json(),
  /** Of transformers: kept, without effect. */
  transformers_version: json(),
  /** Of transformers: kept, without effect. */
  typical_p: json(),
  /** Of transformers: kept, without effect. */
  use_bfloat16: json(),
  /** Of transformers: kept, without effect. */
  use_cache: json(),
};

type Constructor<T> = new (fields: T) => Readonly<T>;

/** A base class whose instances have the fields of `T`. */
export function withFields<T extends object>(): Constructor<T> {
  return class {
    constructor(fields: T) {
      Object.assign(this, deepFreeze(fields));
    }
  } as Constructor<T>;
}

function deepFreeze<T extends object>(value: T): T {
  for (const nested of Object.values(value) as unknown[]) {
    if (typeof nested === 'object' && nested !== null) deepFreeze(nested);
  }
  return Object.freeze(value);
}

/**
 * Checks `fields` against a strict schema and fills in its defaults.
 *
 * @throws {ConfigError} with a line for every problem, each naming the field, what is expected and what was given.
 */
export function parseFields<S extends z.ZodObject>(what: string, schema: S, fields: unknown): z.output<S> {
  const result = schema.safeParse(fields, { reportInput: true });
  if (result.success) return result.data;
  const known = Object.keys(schema.shape);
  throw configError(
    what,
    result.error.issues.flatMap((issue) => describe(issue, known)),
  );
}

/** An error that lists problems. */
export function configError(what: string, problems: readonly string[]): ConfigError {
  return new ConfigError(`${what}: ${problems.join('; ')}`);
}

/** The fields of a config as config.json holds them: a deep copy, sorted by name as transformers does. */
export function toJsonFields(config: object): Record<string, unknown> {
  const entries = Object.entries(config).filter(([, value]) => value !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return structuredClone(Object.fromEntries(entries));
}

/**
 * Reads the config of a checkpoint.
 *
 * @param path a directory that holds a config.json, or a .json file.
 * @throws {ConfigError} when it is missing or not JSON, or when `build` refuses its fields; the file is named.
 */
export async function readConfig<T>(path: string, build: (fields: object) => T): Promise<T> {
  const file = path.endsWith('.json') ? path : join(path, 'config.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
  try {
    return build(parseStrictJson(text) as object);
  } catch (error) {
    throw new ConfigError(`${file}: ${(error as Error).message}`, { cause: error });
  }
}

function describe(issue: z.core.$ZodIssue, known: readonly string[]): string[] {
  if (issue.code === 'unrecognized_keys' && issue.path.length === 0) {
    return issue.keys.map((key) => `unknown field ${JSON.stringify(key)}${suggestion(key, known)}`);
  }
  const field = issue.path.length > 0 ? `${issue.path.join('.')}: ` : '';
  return [`${field}${expectation(issue)}, got ${show(issue.input)}`];
}

function expectation(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_union' && issue.message === 'Invalid input') return 'expected a JSON value';
  const message = issue.message.replace(/^Invalid (input|option): /, '').replace(/, received .*$/, '');
  return message.charAt(0).toLowerCase() + message.slice(1);
}

/** The names that other models in transformers have for these fields. */
const ALIASES = new Map([
  ['hidden_size', 'n_embd'],
  ['num_hidden_layers', 'n_layer'],
  ['num_attention_heads', 'n_head'],
  ['intermediate_size', 'ffd_hidden'],
  ['hidden_act', 'activation_function'],
  ['layer_norm_eps', 'layer_norm_epsilon'],
  ['max_position_embeddings', 'block_size'],
]);

function suggestion(key: string, known: readonly string[]): string {
  const alias = ALIASES.get(key);
  if (alias !== undefined && known.includes(alias)) return `, did you mean "${alias}"?`;
  const [closest] = known
    .map((name) => ({ name, distance: editDistance(key, name) }))
    .sort((a, b) => a.distance - b.distance);
  return closest !== undefined && closest.distance <= 2 ? `, did you mean "${closest.name}"?` : '';
}

/** Levenshtein's distance; whatever is far too long to be a slip of the pen is infinitely far. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return Infinity;
  let row = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = at(row, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, at(row, j) + 1, at(next, j - 1) + 1));
    }
    row = next;
  }
  return at(row, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}

function show(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  const text = (JSON.stringify(value) as string | undefined) ?? typeof value;
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

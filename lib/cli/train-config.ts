import { z } from 'zod';
import { count, parseFields, positive, probability, readConfig, size } from '../model/config-fields.js';

const path = () => z.string().min(1, { error: 'expected a path' });

const weight = () =>
  z.union([
    z.number(),
    z.strictObject({
      from: z.number().exactOptional(),
      to: z.number(),
      startStep: count().exactOptional(),
      steps: size(),
    }),
  ]);

const schema = z.strictObject({
  /** Where everything of the run goes. */
  runDir: path(),
  /** A known size of model; or `from`. */
  preset: z.string().optional(),
  /** A checkpoint's directory whose weights training starts from; or `preset`. */
  from: path().optional(),
  /** Fields of config.json that differ from the preset's. vocab_size and eos_token_id follow the tokenizer. */
  model: z.record(z.string(), z.json()).default({}),
  data: z.strictObject(
    {
      /** Files, directories or patterns; .txt, .md, .jsonl, each also .gz or .zst. */
      files: z.array(path()).min(1, { error: 'expected at least one file' }),
      textField: z.string().optional(),
      delimiter: z.string().optional(),
      /** The share of the documents that is held out. */
      validationFraction: probability().default(0.05),
      /** Decides which. */
      splitSeed: count().default(0),
    },
    { error: (issue) => (issue.input === undefined ? 'expected files of text (--data)' : undefined) },
  ),
  tokenizer: z
    .strictObject({
      /** A tokenizer.json or its directory. Default: that of `from`, else one is trained. */
      path: path().optional(),
      /** The size of a vocabulary to be trained on the data. Default: the model's vocab_size. */
      vocabSize: size().optional(),
    })
    .default({}),
  /** T */
  sequenceLength: size().default(256),
  /** B */
  batchSize: size().default(8),
  /** Whether the documents in a row are kept apart. */
  packed: z.boolean().default(true),
  optimizer: z
    .strictObject({
      betas: z.tuple([probability(), probability()]).default([0.9, 0.95]),
      eps: positive().default(1e-8),
      /** Of matrices; vectors (biases, norms) are never decayed. */
      weightDecay: z.number().nonnegative().default(0.1),
    })
    .prefault({}),
  schedule: z
    .strictObject({
      type: z.enum(['cosine', 'linear', 'constant']).default('cosine'),
      lr: positive().default(1e-3),
      warmupSteps: count().optional(),
      /** The last learning rate as a part of `lr`. */
      finalRatio: z.number().min(0).max(1).default(0.1),
    })
    .prefault({}),
  steps: size(),
  clipNorm: positive().default(1),
  accumulationSteps: size().default(1),
  checkpointEvery: size().default(500),
  keepCheckpoints: size().default(2),
  evaluateEvery: size().optional(),
  /** Weights of the routers' losses, each a number or a ramp; `aux` otherwise is the model's. */
  lossWeights: z
    .strictObject({
      aux: weight().exactOptional(),
      concentration: weight().exactOptional(),
      z: weight().exactOptional(),
    })
    .default({}),
  /** With accumulation, whether load is balanced over each micro-batch or over the whole step. */
  balanceOver: z.enum(['microBatch', 'step']).default('microBatch'),
  /** Patterns of the names of the parameters that are trained; without them all are. */
  trainable: z.array(z.string()).min(1).optional(),
  /** A checkpoint whose parameters stay as they are: only the experts that it lacks are trained. */
  frozenBase: path().optional(),
  /** With `frozenBase`, the decay of the new experts' rows of the routers. */
  routerDecay: z.number().nonnegative().default(1),
  /** Recompute each block in backward: less memory, a third more work. */
  gradientCheckpointing: z.boolean().default(false),
  dtype: z.enum(['f32', 'bf16', 'f64']).default('f32'),
  device: z.enum(['cpu', 'cuda']).default('cpu'),
  seed: count().default(0),
  threads: size().optional(),
});

/** What `moduleformer train` takes as a file, with all defaults filled in. */
export type TrainConfig = z.output<typeof schema>;

/** @throws ConfigError that names every unknown or impossible value. */
export function parseTrainConfig(fields: object): TrainConfig {
  return parseFields('training config', schema, fields);
}

/** The content of a training config's file, unchecked. @throws ConfigError when it is missing or not JSON. */
export async function readTrainConfig(file: string): Promise<Record<string, unknown>> {
  return readConfig(file, (fields) => fields as Record<string, unknown>);
}

/** Lays flags over a config's fields: objects are merged, anything else is replaced. */
export function overlay(
  fields: Readonly<Record<string, unknown>>,
  flags: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...fields };
  for (const [name, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const before = result[name];
    result[name] = isObject(value) ? overlay(isObject(before) ? before : {}, value) : value;
  }
  return result;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

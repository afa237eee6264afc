import { createReadStream } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { CheckpointError, ValueError } from '../errors.js';
import { isSystemError, naming, removeLeftovers } from '../io/atomic.js';
import { isWeightsFile } from '../io/sharded-checkpoint.js';

export const STATE_FILE = 'trainer.json';
export const OPTIMIZER_FILE = 'optimizer.safetensors';

const NAME = /^step-(\d{6,})$/;
const LEFTOVER = /^(step-\d{6,})\.(tmp|old)-\d+-\d+$/;

const count = z.int().nonnegative();
const number = z.number();
const fileSchema = z.strictObject({ bytes: count, crc32: count });
const stateSchema = z.strictObject({
  /** What the file is. */
  format: z.literal('moduleformer-training'),
  /** Of the format. */
  version: z.literal(1),
  /** Optimizer steps done. */
  step: count,
  /** Training tokens seen. */
  tokens: count,
  /** Seconds spent in training. */
  elapsedSeconds: number.nonnegative(),
  /** What decides random numbers and losses of the model. */
  model: z.strictObject({
    /** Of the initial parameters, dropout and sampled top-k. */
    seed: count,
    /** Training passes so far. */
    forwardCount: count,
    /** Of the parameters. */
    dtype: z.enum(['f64', 'f32', 'bf16']),
    /** What the routers' losses count at this step. */
    lossWeights: z.strictObject({ aux: number, concentration: number, z: number }),
  }),
  /** Settings under which the run continues bit for bit; compared by value. */
  settings: z.record(z.string(), z.json()),
  /** Where the data stands; null without a loader. */
  loader: z
    .strictObject({
      /** Epochs that are used up. */
      epoch: count,
      /** Rows of this epoch already delivered. */
      position: count,
      /** Decides the order of the rows. */
      seed: count,
      /** Whether every epoch has an order of its own. */
      shuffle: z.boolean(),
      /** Whether documents are kept apart. */
      packed: z.boolean(),
      /** Which part of the data set. */
      split: z.enum(['train', 'validation']),
      /** T, tokens of a row. */
      sequenceLength: count,
      /** The data set's fingerprint. */
      dataset: z.string(),
    })
    .nullable(),
  /** Of this package and Node, for information. */
  versions: z.record(z.string(), z.string()),
  /** What the other files of the directory hold. */
  files: z.record(z.string(), fileSchema),
});

/** The content of a checkpoint's `trainer.json`. */
export type TrainingState = z.infer<typeof stateSchema>;

/** The directory of the checkpoint after `step` optimizer steps. */
export function checkpointDir(runDir: string, step: number): string {
  return join(runDir, 'checkpoints', `step-${String(step).padStart(6, '0')}`);
}

/** Whether a name in a checkpoint's directory is one that saving makes. */
export function isCheckpointFile(name: string): boolean {
  const known = ['config.json', STATE_FILE, OPTIMIZER_FILE, 'tokenizer.json', 'tokenizer_config.json'];
  return known.includes(name) || isWeightsFile(name);
}

/** Byte counts and checksums of all files in `dir`. */
export async function describeFiles(dir: string): Promise<TrainingState['files']> {
  const files: TrainingState['files'] = {};
  for (const name of (await readdir(dir)).sort()) files[name] = await describeFile(join(dir, name));
  return files;
}

async function describeFile(path: string): Promise<{ bytes: number; crc32: number }> {
  let bytes = 0;
  let sum = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    bytes += (chunk as Buffer).byteLength;
    sum = crc32(chunk as Buffer, sum);
  }
  return { bytes, crc32: sum };
}

export function encodeState(state: TrainingState): string {
  const text = JSON.stringify(state);
  return `${JSON.stringify({ ...state, checksum: crc32(text) }, null, 1)}\n`;
}

/**
 * Reads and checks `trainer.json`.
 * @throws CheckpointError when it is missing or damaged.
 */
export async function readState(dir: string): Promise<TrainingState> {
  const path = join(dir, STATE_FILE);
  const text = await naming(path, () => readFile(path, 'utf8'), 'read');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(`${path}: damaged: ${(cause as Error).message}`, { cause });
  }
  const { checksum, ...rest } = (value ?? {}) as Record<string, unknown>;
  const parsed = stateSchema.safeParse(rest);
  if (!parsed.success) {
    throw new CheckpointError(`${path}: no training state:\n${z.prettifyError(parsed.error)}`);
  }
  if (checksum !== crc32(JSON.stringify(rest))) {
    throw new CheckpointError(`${path}: changed after it was written`);
  }
  return parsed.data;
}

/**
 * Reads a whole checkpoint and compares it with what was written.
 * @throws CheckpointError that names the file that is missing or damaged.
 */
export async function verifyCheckpoint(dir: string): Promise<TrainingState> {
  const state = await readState(dir);
  for (const [name, expected] of Object.entries(state.files)) {
    const path = join(dir, name);
    const found = await naming(path, () => describeFile(path), 'read');
    if (found.bytes !== expected.bytes) {
      throw new CheckpointError(`${path}: ${found.bytes} bytes, expected ${expected.bytes}`);
    }
    if (found.crc32 !== expected.crc32) throw new CheckpointError(`${path}: changed after it was written`);
  }
  return state;
}

/** The steps of which a run has a checkpoint, rising; whether they are intact is not looked at. */
export async function checkpointSteps(runDir: string): Promise<number[]> {
  const dir = join(runDir, 'checkpoints');
  const steps: number[] = [];
  for (const name of await namesIn(dir)) {
    const match = NAME.exec(name);
    if (match && (await exists(join(dir, name, STATE_FILE)))) steps.push(Number(match[1]));
  }
  return steps.sort((a, b) => a - b);
}

/**
 * The directory of a run's newest checkpoint that is intact; undefined when it has none at all. What a crash left and
 * damaged checkpoints are passed over.
 * @throws CheckpointError when there are checkpoints and every one is damaged; it says how.
 */
export async function latestCheckpoint(runDir: string): Promise<string | undefined> {
  const problems: string[] = [];
  for (const step of (await checkpointSteps(runDir)).reverse()) {
    const dir = checkpointDir(runDir, step);
    try {
      await verifyCheckpoint(dir);
      return dir;
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length === 0) return undefined;
  throw new CheckpointError(`${runDir}: every checkpoint is damaged: ${problems.join('; ')}`);
}

/**
 * Removes all but the newest `keep` of the checkpoints up to `lastStep`, oldest first. Later ones, which a run that
 * went back to an earlier step left because they were damaged, do not count and are left alone.
 */
export async function rotateCheckpoints(runDir: string, keep: number, lastStep = Infinity): Promise<void> {
  if (!Number.isSafeInteger(keep) || keep < 1) {
    throw new ValueError(`keepCheckpoints must be an integer of at least 1, got ${String(keep)}`);
  }
  const steps = (await checkpointSteps(runDir)).filter((step) => step <= lastStep);
  for (const step of steps.slice(0, Math.max(0, steps.length - keep))) {
    await removeCheckpoint(checkpointDir(runDir, step));
  }
}

/** Without its state first, so that a half-removed checkpoint never counts as one. */
async function removeCheckpoint(dir: string): Promise<void> {
  await naming(
    dir,
    async () => {
      await rm(join(dir, STATE_FILE), { force: true });
      for (const name of await readdir(dir)) if (isCheckpointFile(name)) await rm(join(dir, name));
      if ((await readdir(dir)).length === 0) await rm(dir, { recursive: true });
    },
    'remove',
  );
}

/** Removes what killed writers left of checkpoints. Only for a moment when nobody else writes to the run. */
export async function removeCheckpointLeftovers(runDir: string): Promise<void> {
  const dir = join(runDir, 'checkpoints');
  const names = await namesIn(dir);
  for (const name of new Set(names.flatMap((each) => LEFTOVER.exec(each)?.[1] ?? []))) {
    await removeLeftovers(join(dir, name));
  }
  for (const name of names) {
    const path = join(dir, name);
    if (NAME.test(name) && !(await exists(join(path, STATE_FILE)))) await removeCheckpoint(path);
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return [];
    throw new CheckpointError(`cannot read ${dir}: ${(error as Error).message}`, { cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

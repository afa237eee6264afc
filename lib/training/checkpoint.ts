import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { DataLoader } from '../data/loader.js';
import type { Tokenizer } from '../data/tokenizer.js';
import { CheckpointError } from '../errors.js';
import { naming, removeLeftovers, writeDirectoryAtomic, writeFilesAtomic } from '../io/atomic.js';
import {
  SafetensorsFile,
  safetensorsContent,
  type TensorSource,
  type TensorToWrite,
} from '../io/safetensors.js';
import { ShardedCheckpoint } from '../io/sharded-checkpoint.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { loadParameters, tensorToWrite } from '../model/weights.js';
import { native } from '../native/load.js';
import type { AdamW } from '../optimizer/adamw.js';
import type { Tensor } from '../tensor.js';
import {
  checkpointDir,
  describeFiles,
  encodeState,
  isCheckpointFile,
  OPTIMIZER_FILE,
  STATE_FILE,
  verifyCheckpoint,
  type TrainingState,
} from './checkpoint-files.js';
import { versions } from './versions.js';

/** All that training needs to go on. */
export interface TrainingCheckpoint {
  /** Saved with its config, weights and place in the random stream. */
  model: CausalLM<CausalLMConfig>;
  /** Saved with its means and counts. */
  optimizer: AdamW;
  /** Optimizer steps done. */
  step: number;
  /** Training tokens seen. */
  tokens: number;
  /** Seconds spent in training. */
  elapsedSeconds: number;
  /** Whose position is saved. */
  train?: DataLoader | undefined;
  /** Saved along, so that the directory can generate text by itself. */
  tokenizer?: Tokenizer | undefined;
  /** Whatever must be the same for the run to continue bit for bit, as JSON. */
  settings?: TrainingState['settings'];
}

/**
 * Writes `<runDir>/checkpoints/step-<step>`, whole or not at all: a Hugging Face directory (config, weights, tokenizer)
 * with the optimizer's state and `trainer.json` besides. Everything enqueued so far is waited for.
 *
 * @returns the directory.
 * @throws CheckpointError when the disk is full or cannot be written; what was there before is unchanged.
 * @throws KernelError when an update of a parameter had failed.
 */
export async function saveTrainingCheckpoint(
  runDir: string,
  checkpoint: TrainingCheckpoint,
): Promise<string> {
  const { model, optimizer, step, tokens, elapsedSeconds, train, tokenizer, settings = {} } = checkpoint;
  const dir = checkpointDir(runDir, step);
  const { seed, forwardCount, dtype } = model;
  const state = {
    format: 'moduleformer-training',
    version: 1,
    step,
    tokens,
    elapsedSeconds,
    model: { seed, forwardCount, dtype, lossWeights: { ...model.lossWeights } },
    settings,
    loader: train?.state() ?? null,
    versions: versions(),
  } as const;
  await removeLeftovers(dir);
  await writeDirectoryAtomic(
    dir,
    async (temporary) => {
      const path = join(temporary, OPTIMIZER_FILE);
      const tensors = [...optimizer.namedState()].map(([name, x]) => stateToWrite(name, x));
      await writeFilesAtomic([
        ...model.checkpointFiles(temporary),
        { path, content: safetensorsContent(path, tensors) },
      ]);
      await tokenizer?.save(temporary);
      await naming(dir, async () => {
        const files = await describeFiles(temporary);
        await writeFile(join(temporary, STATE_FILE), encodeState({ ...state, files }));
      });
    },
    isCheckpointFile,
  );
  return dir;
}

/**
 * Puts model, optimizer and loader into the state that `dir` holds. Everything is read through and compared first; when
 * something is damaged or does not fit, nothing is changed.
 *
 * @returns the rest of the state: step, tokens, settings.
 * @throws CheckpointError that says what is damaged, or which setting, seed or tensor differs.
 * @throws DataError when `train` has other data or cuts it differently.
 */
export async function loadTrainingCheckpoint(
  dir: string,
  {
    model,
    optimizer,
    train,
    settings,
  }: Pick<TrainingCheckpoint, 'model' | 'optimizer' | 'train' | 'settings'>,
): Promise<TrainingState> {
  const state = await verifyCheckpoint(dir);
  const { seed, dtype } = model;
  requireEqual(dir, { seed: state.model.seed, dtype: state.model.dtype }, { seed, dtype });
  if (settings) requireEqual(dir, state.settings, settings);
  if (train && !state.loader) throw new CheckpointError(`${dir}: cannot continue: it has no data position`);
  const parameters = new Map(model.namedParameters());
  const steps = new Map<string, Tensor>();
  for (const [name, tensor] of optimizer.namedState()) {
    (tensor.dtype === 'i32' ? steps : parameters).set(name, tensor);
  }
  await using weights = await ShardedCheckpoint.open(dir);
  await using moments = await SafetensorsFile.open(join(dir, OPTIMIZER_FILE));
  const counts = await readSteps(moments, steps);
  const positionBefore = train?.state();
  if (train && state.loader) train.load(state.loader);
  try {
    await loadParameters(parameters, joined(weights, moments), dir, (name) => steps.has(name));
  } catch (error) {
    if (train && positionBefore) train.load(positionBefore);
    throw error;
  }
  for (const [name, tensor] of steps) {
    native.write(tensor.id, counts.get(name) as Int32Array, 0);
    tensor.version.count++;
  }
  model.forwardCount = state.model.forwardCount;
  Object.assign(model.lossWeights, state.model.lossWeights);
  return state;
}

/** The optimizer's counts of updates, which are integers. */
async function readSteps(
  source: SafetensorsFile,
  steps: ReadonlyMap<string, Tensor>,
): Promise<Map<string, Int32Array>> {
  const counts = new Map<string, Int32Array>();
  for (const name of steps.keys()) {
    const entry = source.entries.get(name);
    if (entry?.dtype !== 'I32' || entry.shape.join() !== '1') {
      throw new CheckpointError(`${source.path}: ${name} is missing or no I32 of shape [1]`);
    }
    counts.set(name, new Int32Array((await source.read(name)).buffer));
  }
  return counts;
}

function requireEqual(dir: string, saved: unknown, given: unknown): void {
  const difference = firstDifference(saved, given, '');
  if (difference === undefined) return;
  const { path, a, b } = difference;
  throw new CheckpointError(
    `${dir}: cannot continue bit for bit: it was made with ${path} ${JSON.stringify(a)}, given is ${JSON.stringify(b)}`,
  );
}

/** Where two JSON values differ, for example at `model.n_embd`. */
function firstDifference(
  a: unknown,
  b: unknown,
  path: string,
): { path: string; a: unknown; b: unknown } | undefined {
  if (isDeepStrictEqual(a, b)) return undefined;
  if (!isRecord(a) || !isRecord(b)) return { path, a, b };
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const found = firstDifference(a[key], b[key], path === '' ? key : `${path}.${key}`);
    if (found) return found;
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** As tensorToWrite, with the optimizer's counts besides. */
function stateToWrite(name: string, tensor: Tensor): TensorToWrite {
  if (tensor.dtype !== 'i32') return tensorToWrite(name, tensor);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    yield await tensor.bytes();
  };
  return { name, dtype: 'I32', shape: [...tensor.shape], byteLength: tensor.numel * 4, chunks };
}

/** Two sources of differently named tensors as one. */
function joined(a: TensorSource, b: TensorSource): TensorSource {
  const of = (name: string): TensorSource => (a.entries.has(name) ? a : b);
  return {
    entries: new Map([...a.entries, ...b.entries]),
    readInto: (name, target, offsetBytes) => of(name).readInto(name, target, offsetBytes),
    read: (name) => of(name).read(name),
    close: async () => {
      await a.close();
      await b.close();
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

import { readdir } from 'node:fs/promises';
import { CheckpointError } from '../errors.js';
import { isSystemError } from '../io/atomic.js';
import { isWeightsFile } from '../io/sharded-checkpoint.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { ModuleFormerConfig } from '../model/config.js';
import { readConfig } from '../model/config-fields.js';
import { DenseConfig } from '../model/dense-config.js';
import { DenseForCausalLM } from '../model/dense.js';
import { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import type { LoadOptions } from '../model/pretrained-model.js';
import { latestCheckpoint } from '../training/checkpoint-files.js';

/**
 * The directory with the weights that a path stands for: itself, or the newest intact checkpoint of a run.
 * @throws CheckpointError when it is neither.
 */
export async function resolveCheckpoint(path: string): Promise<string> {
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new CheckpointError(`${path}: no checkpoint: ${error.message}`, { cause: error });
  }
  if (names.some(isWeightsFile)) return path;
  const latest = names.includes('checkpoints') ? await latestCheckpoint(path) : undefined;
  if (latest !== undefined) return latest;
  throw new CheckpointError(
    `${path}: neither a checkpoint (config.json and model.safetensors) nor a run that has one`,
  );
}

/** The config that fields of a config.json make: that of a dense model when `model_type` says so. @throws ConfigError */
export function modelConfig(fields: object): ModuleFormerConfig | DenseConfig {
  const isDense = (fields as { model_type?: unknown }).model_type === 'moduleformer-dense';
  return isDense ? new DenseConfig(fields) : new ModuleFormerConfig(fields);
}

/** The config of a checkpoint. @throws ConfigError */
export async function readModelConfig(dir: string): Promise<ModuleFormerConfig | DenseConfig> {
  return readConfig(dir, modelConfig);
}

/** Loads a language model of either kind, in evaluation mode. @throws ConfigError, CheckpointError */
export async function loadCausalLM(dir: string, options: LoadOptions): Promise<CausalLM<CausalLMConfig>> {
  const config = await readModelConfig(dir);
  if (config instanceof DenseConfig) return DenseForCausalLM.fromPretrained(dir, options);
  return ModuleFormerForCausalLM.fromPretrained(dir, options);
}

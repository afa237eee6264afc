import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { TextDataset } from '../data/dataset.js';
import { DataLoader } from '../data/loader.js';
import { Tokenizer } from '../data/tokenizer.js';
import { trainTokenizer } from '../data/train-tokenizer.js';
import { ConfigError } from '../errors.js';
import { newExpertGroups, newExpertPatterns } from '../experts/extend.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { DenseForCausalLM } from '../model/dense.js';
import { DenseConfig } from '../model/dense-config.js';
import { ModuleFormerConfig } from '../model/config.js';
import { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { presetConfig } from '../model/presets.js';
import type { TrainablePattern } from '../nn/module.js';
import { AdamW, type AdamWGroupOptions } from '../optimizer/adamw.js';
import { constantSchedule, cosineSchedule, linearSchedule, type Schedule } from '../optimizer/schedule.js';
import { weightDecayGroups } from '../training/parameter-groups.js';
import type { TrainerOptions } from '../training/trainer-options.js';
import { loadCausalLM, modelConfig, readModelConfig, resolveCheckpoint } from './models.js';
import type { TrainConfig } from './train-config.js';

interface Preparation {
  /** Whether what an earlier part of the run prepared is to be used. */
  isResumed: boolean;
  say: (line: string) => void;
}

/** The fields of the model's config before the tokenizer is known. @throws ConfigError when they are impossible. */
function modelFields({ preset, from, model }: TrainConfig): Record<string, unknown> {
  if (preset !== undefined && from !== undefined) {
    throw new ConfigError('training config: give preset or from, not both');
  }
  if (from !== undefined && Object.keys(model).length > 0) {
    throw new ConfigError(`training config: the model is that of ${from}; its fields cannot be changed`);
  }
  if (preset === undefined && from === undefined && Object.keys(model).length === 0) {
    throw new ConfigError('training config: give a preset, the fields of a model, or from');
  }
  return { ...(preset === undefined ? {} : presetConfig(preset).toJSON()), ...model };
}

/** Finds impossible settings before minutes go into data. @throws ConfigError, CheckpointError */
export async function checkTrainConfig(config: TrainConfig): Promise<void> {
  const fields = modelFields(config);
  if (config.from === undefined) modelConfig(fields);
  else await resolveCheckpoint(config.from);
  await trainedPatterns(config);
  buildSchedule(config);
}

/** What is to be trained; undefined for everything. @throws ConfigError, CheckpointError, ValueError */
async function trainedPatterns({
  trainable,
  frozenBase,
  from,
}: TrainConfig): Promise<TrainablePattern[] | undefined> {
  if (frozenBase === undefined) return trainable;
  if (trainable) throw new ConfigError('training config: give trainable or frozenBase, not both');
  if (from === undefined) {
    throw new ConfigError('training config: frozenBase needs from, a model with more experts than the base');
  }
  const [config, base] = await Promise.all(
    [from, frozenBase].map(async (path) => readModelConfig(await resolveCheckpoint(path))),
  );
  if (!(config instanceof ModuleFormerConfig && base instanceof ModuleFormerConfig)) {
    throw new ConfigError('training config: frozenBase needs models with experts');
  }
  return newExpertPatterns(config, base);
}

/** The run's tokenizer, kept in its directory. @throws DataError, CheckpointError */
export async function prepareTokenizer(
  config: TrainConfig,
  { isResumed, say }: Preparation,
): Promise<Tokenizer> {
  const dir = join(config.runDir, 'tokenizer');
  if (isResumed && (await exists(join(dir, 'tokenizer.json')))) return Tokenizer.fromFile(dir);
  const { path, vocabSize } = config.tokenizer;
  let tokenizer: Tokenizer;
  if (path !== undefined) tokenizer = await Tokenizer.fromFile(path);
  else if (config.from !== undefined) {
    tokenizer = await Tokenizer.fromPretrained(await resolveCheckpoint(config.from));
  } else {
    const size = vocabSize ?? modelConfig(modelFields(config)).vocab_size;
    say(`training a tokenizer of ${size} ids`);
    tokenizer = await trainTokenizer({ files: config.data.files, vocabSize: size });
  }
  await tokenizer.save(dir);
  return tokenizer;
}

/** The run's data, tokenised once into its directory. @throws DataError, CheckpointError */
export async function prepareDataset(
  { runDir, data }: TrainConfig,
  tokenizer: Tokenizer,
  { isResumed, say }: Preparation,
): Promise<TextDataset> {
  const outDir = join(runDir, 'data');
  // A run that is resumed needs its own copy only.
  const isThere = isResumed && (await exists(join(outDir, 'dataset.json')));
  if (!isThere) say('tokenising');
  const { files, textField, delimiter, validationFraction, splitSeed: seed } = data;
  const dataset = isThere
    ? await TextDataset.open(outDir, { tokenizer })
    : await TextDataset.build({
        files,
        tokenizer,
        outDir,
        validationFraction,
        seed,
        ...(textField === undefined ? {} : { textField }),
        ...(delimiter === undefined ? {} : { delimiter }),
      });
  say(
    `${dataset.train.tokenCount} tokens to train on, ${dataset.validation.tokenCount} held out, ` +
      `${tokenizer.vocabSize} ids`,
  );
  return dataset;
}

/** @throws ConfigError, CheckpointError, DataError when the tokenizer does not fit the model. */
export async function buildModel(
  config: TrainConfig,
  tokenizer: Tokenizer,
): Promise<CausalLM<CausalLMConfig>> {
  const { dtype, device, seed, from, gradientCheckpointing } = config;
  const options = { dtype, device, seed };
  let model: CausalLM<CausalLMConfig>;
  if (from !== undefined) model = await loadCausalLM(await resolveCheckpoint(from), options);
  else {
    const ids = { vocab_size: tokenizer.vocabSize, eos_token_id: tokenizer.eosId ?? null };
    const fitted = modelConfig({ ...modelFields(config), ...ids, ...config.model });
    model =
      fitted instanceof DenseConfig
        ? new DenseForCausalLM(fitted, options)
        : new ModuleFormerForCausalLM(fitted, options);
  }
  tokenizer.assertFits(model.config.vocab_size);
  model.gradientCheckpointing = gradientCheckpointing;
  const patterns = await trainedPatterns(config);
  if (patterns) model.trainable(...patterns);
  return model;
}

/** Everything that a Trainer needs. @throws ValueError, DataError */
export function trainerOptions(
  config: TrainConfig,
  {
    model,
    tokenizer,
    dataset,
  }: { model: CausalLM<CausalLMConfig>; tokenizer: Tokenizer; dataset: TextDataset },
): TrainerOptions {
  const { batchSize, sequenceLength, packed, seed, optimizer } = config;
  const shape = { dataset, batchSize, sequenceLength, packed };
  const hasValidation = dataset.validation.tokenCount > 1;
  return {
    model,
    tokenizer,
    train: new DataLoader({ ...shape, seed }),
    validation: hasValidation ? new DataLoader({ ...shape, split: 'validation' }) : undefined,
    lossWeights: config.lossWeights,
    balanceOver: config.balanceOver,
    optimizer: new AdamW(parameterGroups(model, config), {
      betas: optimizer.betas,
      eps: optimizer.eps,
    }),
    schedule: buildSchedule(config),
    steps: config.steps,
    clipNorm: config.clipNorm,
    accumulationSteps: config.accumulationSteps,
    runDir: config.runDir,
    checkpointEvery: config.checkpointEvery,
    keepCheckpoints: config.keepCheckpoints,
    evaluateEvery: config.evaluateEvery,
  };
}

function parameterGroups(model: CausalLM<CausalLMConfig>, config: TrainConfig): AdamWGroupOptions[] {
  const { frozenBase, routerDecay, optimizer } = config;
  if (frozenBase === undefined || !(model instanceof ModuleFormerForCausalLM)) {
    return weightDecayGroups(model, optimizer.weightDecay);
  }
  return newExpertGroups(model, { weightDecay: optimizer.weightDecay, routerDecay });
}

function buildSchedule({ schedule, steps }: TrainConfig): Schedule {
  const { type, lr, finalRatio, warmupSteps = Math.floor(steps / 20) } = schedule;
  switch (type) {
    case 'constant':
      return constantSchedule({ lr, warmupSteps });
    case 'linear':
      return linearSchedule({ lr, warmupSteps, finalRatio, totalSteps: steps });
    case 'cosine':
      return cosineSchedule({ lr, warmupSteps, finalRatio, totalSteps: steps });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

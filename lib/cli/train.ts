import { mkdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ConfigError, DataError } from '../errors.js';
import { naming, writeFileAtomic } from '../io/atomic.js';
import type { ModuleFormerConfig } from '../model/config.js';
import { countParameters } from '../model/count-parameters.js';
import type { DenseConfig } from '../model/dense-config.js';
import { checkpointSteps } from '../training/checkpoint-files.js';
import { writeReport } from '../training/report.js';
import { writeSummary } from '../training/summary.js';
import { Trainer, type TrainingResult } from '../training/trainer.js';
import { prepareBackend } from './backend.js';
import { grouped, printJson, printTable } from './command.js';
import { interruptible } from './signals.js';
import type { TrainFlags } from './train-command.js';
import { overlay, parseTrainConfig, readTrainConfig, type TrainConfig } from './train-config.js';
import {
  buildModel,
  checkTrainConfig,
  prepareDataset,
  prepareTokenizer,
  trainerOptions,
} from './train-setup.js';

/** The run's own copy of its settings, which `--resume` reads. */
const CONFIG_FILE = 'train.json';

export async function train(configFile: string | undefined, flags: TrainFlags): Promise<void> {
  const config = await resolveConfig(configFile, flags);
  const { runDir } = config;
  await checkTrainConfig(config);
  await naming(runDir, () => mkdir(runDir, { recursive: true }));
  await writeFileAtomic(join(runDir, CONFIG_FILE), `${JSON.stringify(config, null, 2)}\n`);

  const say = (line: string): void => void (flags.json || process.stdout.write(`${line}\n`));
  prepareBackend(config, flags.json ? undefined : say);
  const isResumed = flags.resume !== undefined;
  const tokenizer = await prepareTokenizer(config, { isResumed, say });
  const dataset = await prepareDataset(config, tokenizer, { isResumed, say });
  const model = await buildModel(config, tokenizer);
  const parameters = countParameters(model.config as ModuleFormerConfig | DenseConfig);
  say(`${grouped(parameters.total)} parameters, ${grouped(parameters.active)} of them active per token`);
  const options = {
    ...trainerOptions(config, { model, tokenizer, dataset }),
    progress: flags.json ? false : { backend: false },
  };
  const result = await interruptible('finishing this step, then saving a checkpoint', (signal) => {
    const trainer = new Trainer({ ...options, signal });
    return isResumed ? trainer.resume() : trainer.run();
  });
  await writeSummary(runDir, {
    ...(result.validation ? { validation: result.validation } : {}),
    parameters: parameters.total,
    activeParameters: parameters.active,
  });
  const report = await writeReport(runDir);
  if (flags.json) printJson({ ...result, runDir, report, parameters });
  else printResult(result, report);
}

/** The settings of a new run, from file and flags, or those of the run to be resumed, with flags laid over them. */
async function resolveConfig(configFile: string | undefined, flags: TrainFlags): Promise<TrainConfig> {
  const given = overlay(configFile === undefined ? {} : await readTrainConfig(configFile), flagFields(flags));
  const runDir = typeof flags.resume === 'string' ? flags.resume : given['runDir'];
  if (typeof runDir !== 'string') {
    throw new ConfigError('no run directory: give --run-dir, or runDir in the config file');
  }
  if (flags.resume === undefined) {
    if (await holdsRun(runDir)) {
      throw new DataError(`${runDir}: holds another run; give --resume to continue it, or another directory`);
    }
    return absolute(parseTrainConfig(given));
  }
  const before = await readTrainConfig(join(runDir, CONFIG_FILE)).catch((error: unknown) => {
    if (!(error instanceof ConfigError && isMissing(error.cause))) throw error;
    throw new DataError(`${runDir}: there is no run to resume`, { cause: error });
  });
  return absolute(parseTrainConfig(overlay(before, { ...given, runDir })));
}

/** Whether training has begun in a directory. */
async function holdsRun(runDir: string): Promise<boolean> {
  const metrics = await stat(join(runDir, 'metrics.jsonl')).catch(() => undefined);
  return (metrics?.size ?? 0) > 0 || (await checkpointSteps(runDir)).length > 0;
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && (cause as NodeJS.ErrnoException).code === 'ENOENT';
}

/** Flags as fields of a config; those that were not given are undefined. */
function flagFields(flags: TrainFlags): Record<string, unknown> {
  const { data, textField, delimiter, tokenizer, vocabSize, lr, schedule, warmupSteps, weightDecay } = flags;
  const elsewhere = [
    'resume',
    'json',
    'textField',
    'delimiter',
    'vocabSize',
    'lr',
    'warmupSteps',
    'weightDecay',
    'concentration',
  ];
  const group = (fields: Record<string, unknown>): Record<string, unknown> | undefined =>
    Object.values(fields).some((value) => value !== undefined) ? fields : undefined;
  return {
    ...Object.fromEntries(Object.entries(flags).filter(([name]) => !elsewhere.includes(name))),
    data: group({ files: data, textField, delimiter }),
    tokenizer: group({ path: tokenizer, vocabSize }),
    schedule: group({ type: schedule, lr, warmupSteps }),
    optimizer: group({ weightDecay }),
    lossWeights: group({ concentration: flags.concentration }),
  };
}

/** Paths that still lead to the same files when the run is resumed from another directory. */
function absolute(config: TrainConfig): TrainConfig {
  const { data, tokenizer, from, frozenBase, runDir } = config;
  return {
    ...config,
    runDir: resolve(runDir),
    data: { ...data, files: data.files.map((file) => resolve(file)) },
    ...(from === undefined ? {} : { from: resolve(from) }),
    ...(frozenBase === undefined ? {} : { frozenBase: resolve(frozenBase) }),
    tokenizer: tokenizer.path === undefined ? tokenizer : { ...tokenizer, path: resolve(tokenizer.path) },
  };
}

function printResult(result: TrainingResult, report: string): void {
  const { status, step, validation, checkpoint } = result;
  process.stdout.write('\n');
  printTable([
    ['status', status === 'finished' ? `finished after ${step} steps` : `interrupted after ${step} steps`],
    ...(validation ? [['held-out perplexity', validation.perplexity.toFixed(2)] as const] : []),
    ...(checkpoint === undefined ? [] : [['checkpoint', checkpoint] as const]),
    ['report', report],
  ]);
}

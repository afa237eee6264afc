import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TextDataset } from '../../lib/data/dataset.js';
import { DataLoader } from '../../lib/data/loader.js';
import type { Tokenizer } from '../../lib/data/tokenizer.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { AdamW } from '../../lib/optimizer/adamw.js';
import { cosineSchedule } from '../../lib/optimizer/schedule.js';
import { OPTIMIZER_FILE } from '../../lib/training/checkpoint-files.js';
import { weightDecayGroups } from '../../lib/training/parameter-groups.js';
import type { TrainerOptions } from '../../lib/training/trainer.js';
import { letterTokenizer, syntheticTexts } from './data.js';

/** A model with everything that draws random numbers: dropout in both places and sampled experts. */
export const tinyConfig: ModuleFormerConfigInit = {
  vocab_size: 27,
  n_embd: 16,
  n_layer: 2,
  n_head: 2,
  att_hidden: 16,
  ffd_hidden: 16,
  gating_size: 8,
  n_att_experts: 4,
  n_mlp_experts: 4,
  sample_topk: 1,
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  moe_pdrop: 0.1,
  aux_loss_weight: 0.01,
  eos_token_id: 0,
};

export const tokenizer: Tokenizer = letterTokenizer();

/** Some hundred lines of letters as a data set in `dir`. */
export async function tinyDataset(dir: string): Promise<TextDataset> {
  await mkdir(dir, { recursive: true });
  const file = join(dir, 'texts.txt');
  const letters = syntheticTexts(200).map((text) => text.replace(/[^a-z]/g, ''));
  await writeFile(file, letters.join('\n'));
  return TextDataset.build({
    files: file,
    delimiter: '\n',
    tokenizer,
    outDir: join(dir, 'data'),
    validationFraction: 0.1,
  });
}

export const STEPS = 8;

export interface TinyOptions {
  config?: ModuleFormerConfigInit;
  dtype?: 'f32' | 'bf16' | 'f64';
  /** Of the schedule, and of the run unless `steps` ends it before. */
  totalSteps?: number;
}

/** Options of a run, of 8 steps unless given, with a checkpoint after every third; another call makes an equal run. */
export function tinyRun(
  dataset: TextDataset,
  options: Partial<TrainerOptions> & TinyOptions = {},
): TrainerOptions {
  const { config = {}, dtype = 'f32', totalSteps = STEPS, ...rest } = options;
  const model = new ModuleFormerForCausalLM(new ModuleFormerConfig({ ...tinyConfig, ...config }), {
    dtype,
    seed: 5,
  });
  return {
    model,
    train: new DataLoader({ dataset, batchSize: 2, sequenceLength: 16, seed: 3 }),
    optimizer: new AdamW(weightDecayGroups(model, 0.1)),
    schedule: cosineSchedule({ lr: 0.01, warmupSteps: 2, totalSteps }),
    steps: totalSteps,
    checkpointEvery: 3,
    ...rest,
  };
}

/** The bytes of a checkpoint's weights and optimizer state. */
export async function checkpointBytes(dir: string): Promise<{ weights: Buffer; optimizer: Buffer }> {
  return {
    weights: await readFile(join(dir, 'model.safetensors')),
    optimizer: await readFile(join(dir, OPTIMIZER_FILE)),
  };
}

import type { DataLoader } from '../data/loader.js';
import type { Tokenizer } from '../data/tokenizer.js';
import { ValueError } from '../errors.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import type { AdamW } from '../optimizer/adamw.js';
import type { Schedule } from '../optimizer/schedule.js';
import type { Tensor } from '../tensor.js';
import type { Evaluation } from './evaluate.js';
import { requireLossWeights, type LossWeightSchedules } from './loss-weights.js';
import type { MetricsRecord } from './metrics.js';
import type { ProgressOptions } from './progress.js';

/** What is trained, with which data, how long, and what is written where. */
export interface TrainerOptions {
  /** Trained in place. */
  model: CausalLM<CausalLMConfig>;
  /** Batches of the split 'train'. */
  train: DataLoader;
  /** Held-out batches, evaluated every `evaluateEvery` steps and at the end. */
  validation?: DataLoader | undefined;
  /** Over the model's parameters, or some of them; `schedule` sets its rate. */
  optimizer: AdamW;
  /** The learning rate of every step. */
  schedule: Schedule;
  /** Optimizer steps of the whole run, those before a resume included. */
  steps: number;
  /** The most that the gradients' norm may be. Default 1; Infinity leaves gradients as they are. */
  clipNorm?: number;
  /** Batches of one optimizer step. Default 1. */
  accumulationSteps?: number;
  /**
   * Weights of the routers' losses, fixed or changing over the steps: `aux` balances the load (pre-training),
   * `concentration` gathers it on few experts (fine-tuning). What is missing stays as in `model.lossWeights`.
   */
  lossWeights?: LossWeightSchedules;
  /**
   * With accumulation, whether the routers' losses look at the load of each micro-batch (the default) or at that of the
   * whole step, exactly as one large batch would: for the price of another forward pass.
   */
  balanceOver?: 'microBatch' | 'step';
  /** A scalar that is added to the loss of every optimizer step, with its gradient: `RouterMemory.penalty`, for instance. */
  regularizer?: (() => Tensor) | undefined;
  /** Where checkpoints, `metrics.jsonl` and `config.json` go. Without it nothing is written and nothing resumed. */
  runDir?: string | undefined;
  /** Steps between two checkpoints; there is always one at the end. Default 1000. */
  checkpointEvery?: number;
  /** How many checkpoints are kept, the newest ones. Default 2. */
  keepCheckpoints?: number;
  /** Steps between two evaluations; there is always one at the end. Default: only that. */
  evaluateEvery?: number | undefined;
  /** Saved in every checkpoint, so that it can generate text by itself. */
  tokenizer?: Tokenizer | undefined;
  /** A live display, after a line that tells which backend runs and why (unless `backend` is false). Default false. */
  progress?: boolean | (Pick<ProgressOptions, 'stream' | 'intervalSeconds'> & { backend?: boolean });
  /** Called after each step. */
  onStep?: (record: MetricsRecord) => void;
  /** Ends training after the step in progress, with a checkpoint. */
  signal?: AbortSignal | undefined;
}

/** How training ended. */
export interface TrainingResult {
  /** Optimizer steps done in the whole run. */
  step: number;
  /** Training tokens seen in the whole run. */
  tokens: number;
  /** Seconds spent in training in the whole run. */
  elapsedSeconds: number;
  /** 'aborted' when `signal` ended training before the last step. */
  status: 'finished' | 'aborted';
  /** Of the last step; absent when no step was left to do. */
  last?: MetricsRecord;
  /** Of the final model; absent without validation data or when aborted. */
  validation?: Evaluation;
  /** The newest checkpoint's directory; absent without `runDir`. */
  checkpoint?: string;
}

/** The options with their defaults, checked. @throws ValueError, DataError */
export function resolveOptions(options: TrainerOptions) {
  const resolved = {
    clipNorm: 1,
    accumulationSteps: 1,
    checkpointEvery: 1000,
    keepCheckpoints: 2,
    balanceOver: 'microBatch' as const,
    lossWeights: {},
    ...options,
  };
  const { model, train, validation, clipNorm, schedule } = resolved;
  for (const name of ['steps', 'accumulationSteps', 'checkpointEvery', 'keepCheckpoints'] as const) {
    positive(name, resolved[name]);
  }
  if (options.evaluateEvery !== undefined) positive('evaluateEvery', options.evaluateEvery);
  if (!(clipNorm > 0)) throw new ValueError(`Trainer: clipNorm must be above 0, got ${String(clipNorm)}`);
  if (train.split !== 'train') {
    throw new ValueError(`Trainer: train must be a loader of the split 'train', got '${train.split}'`);
  }
  if (validation !== undefined && validation.split !== 'validation') {
    throw new ValueError(
      `Trainer: validation must be a loader of the split 'validation', got '${validation.split}'`,
    );
  }
  requireLossWeights(resolved.lossWeights);
  options.tokenizer?.assertFits(model.config.vocab_size);
  for (const loader of validation ? [train, validation] : [train]) {
    loader.dataset.assertFits(model.config.vocab_size);
  }
  schedule(0);
  return resolved;
}

export type ResolvedOptions = ReturnType<typeof resolveOptions>;

function positive(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 1) return;
  throw new ValueError(`Trainer: ${name} must be an integer of at least 1, got ${String(value)}`);
}

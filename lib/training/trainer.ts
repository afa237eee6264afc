import { join } from 'node:path';
import type { Batch } from '../data/loader.js';
import { DataError, DivergenceError, KernelError, ValueError } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';
import { lockDirectory } from '../io/lock.js';
import { describeBackend } from '../system.js';
import {
  checkpointSteps,
  latestCheckpoint,
  removeCheckpointLeftovers,
  rotateCheckpoints,
  type TrainingState,
} from './checkpoint-files.js';
import { loadTrainingCheckpoint, saveTrainingCheckpoint } from './checkpoint.js';
import { evaluate, type Evaluation } from './evaluate.js';
import { MetricsWriter, type MetricsRecord } from './metrics.js';
import { lossWeightsAt } from './loss-weights.js';
import { Progress } from './progress.js';
import {
  resolveOptions,
  type ResolvedOptions,
  type TrainerOptions,
  type TrainingResult,
} from './trainer-options.js';
import { enqueueStep, type EnqueuedStep, type StepResult } from './training-step.js';

export type { TrainerOptions, TrainingResult } from './trainer-options.js';

/** A step that the device may still be working on. */
interface Pending extends EnqueuedStep {
  step: number;
  lr: number;
}

/**
 * Trains a language model: batches, gradients, clipping, learning rate, evaluation, metrics, checkpoints.
 *
 * The loss of a step is read while the next one runs, so Node's event loop stays free and the device busy. A run that
 * was interrupted, be it by `kill -9`, continues bit for bit with `resume()`, for any number of threads.
 */
export class Trainer {
  readonly #options: ResolvedOptions;
  #isRunning = false;
  #step = 0;
  #tokens = 0;
  #elapsedSeconds = 0;
  /** When the step being waited for began, as far as the host can tell. */
  #clock = 0;
  #savedStep = 0;
  #report: (record: MetricsRecord) => void = () => undefined;
  #flush: () => void = () => undefined;
  #last: MetricsRecord | undefined;
  #validation: Evaluation | undefined;
  #checkpoint: string | undefined;

  /** @throws ValueError, DataError for options that are impossible or do not fit each other. */
  constructor(options: TrainerOptions) {
    this.#options = resolveOptions(options);
  }

  /**
   * Trains from the first step.
   * @throws DataError when `runDir` holds another run, or another process is training there.
   * @throws DivergenceError when loss or gradient norm become NaN or infinite. The step and those after it are not
   *   applied, and the last checkpoint stays.
   * @throws KernelError when computing failed; it names the step, which is not applied, and the operation.
   * @throws CheckpointError when a checkpoint cannot be written; the ones before stay.
   */
  async run(): Promise<TrainingResult> {
    return this.#exclusively(async () => {
      const { runDir } = this.#options;
      if (runDir !== undefined && (await checkpointSteps(runDir)).length > 0) {
        throw new DataError(
          `${runDir}: holds checkpoints of another run; resume it, or choose another directory`,
        );
      }
      return this.#train(undefined);
    });
  }

  /**
   * Continues a run after its newest intact checkpoint, or from the start when it has none yet. Model, optimizer and
   * data must be made as they were for `run()`: a difference is an error, except in how often something is saved,
   * evaluated or shown and in a later last step.
   * @throws CheckpointError when every checkpoint is damaged, or the newest does not fit; nothing is changed then.
   * @throws what `run` throws.
   */
  async resume(): Promise<TrainingResult> {
    return this.#exclusively(async () => {
      const { runDir, model, optimizer, train } = this.#options;
      if (runDir === undefined) throw new ValueError('Trainer: resume needs the runDir of the run');
      await removeCheckpointLeftovers(runDir);
      this.#checkpoint = await latestCheckpoint(runDir);
      if (this.#checkpoint !== undefined) {
        const settings = this.#settings();
        const state = await loadTrainingCheckpoint(this.#checkpoint, { model, optimizer, train, settings });
        this.#step = state.step;
        this.#savedStep = state.step;
        this.#tokens = state.tokens;
        this.#elapsedSeconds = state.elapsedSeconds;
      }
      return this.#train(this.#step);
    });
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isRunning || this.#step > 0)
      throw new ValueError('Trainer: a trainer runs once; make another one');
    this.#isRunning = true;
    const { runDir } = this.#options;
    try {
      const unlock = runDir === undefined ? undefined : await lockDirectory(runDir);
      try {
        return await work();
      } finally {
        await unlock?.();
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /** @param resumedStep the step that metrics are cut back to; undefined for a new run. */
  async #train(resumedStep: number | undefined): Promise<TrainingResult> {
    const { model, runDir, steps, progress: shown = false } = this.#options;
    const { backend = true, ...display } = typeof shown === 'object' ? shown : {};
    const metrics = runDir === undefined ? undefined : await this.#openRun(runDir, resumedStep);
    const progress = new Progress({
      total: Math.max(steps, this.#step),
      startStep: this.#step,
      silent: shown === false,
      ...display,
    });
    if (backend && shown !== false) progress.log(`backend: ${describeBackend(model.device).summary}`);
    this.#report = (record) => {
      metrics?.write(record);
      progress.update(record);
      this.#options.onStep?.(record);
    };
    this.#flush = () => metrics?.flush();
    const wasTraining = model.training;
    model.train();
    try {
      await this.#loop();
      return await this.#finish();
    } finally {
      model.train(wasTraining);
      progress.stop();
      await metrics?.close();
    }
  }

  /** Prepares the run's directory and its metrics. */
  async #openRun(runDir: string, resumedStep: number | undefined): Promise<MetricsWriter> {
    const metrics = await MetricsWriter.open(
      join(runDir, 'metrics.jsonl'),
      resumedStep === undefined ? {} : { resumedStep },
    );
    try {
      const { steps, checkpointEvery } = this.#options;
      const config = { ...this.#settings(), steps, checkpointEvery };
      await writeFileAtomic(join(runDir, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
      return metrics;
    } catch (error) {
      await metrics.close();
      throw error;
    }
  }

  /** Whatever decides the bits of a run besides the seeds and the data, which are compared by themselves. */
  #settings(): TrainingState['settings'] {
    const { model, optimizer, schedule, train, clipNorm, accumulationSteps, balanceOver, lossWeights } =
      this.#options;
    const settings = {
      model: model.config.toJSON(),
      optimizer: optimizer.groups.map(({ params, betas, eps, weightDecay }) => ({
        parameters: params.length,
        betas,
        eps,
        weightDecay,
      })),
      schedule: schedule.description,
      batchSize: train.batchSize,
      sequenceLength: train.sequenceLength,
      accumulationSteps,
      clipNorm: clipNorm === Infinity ? null : clipNorm,
      balanceOver,
      lossWeights,
    };
    return JSON.parse(JSON.stringify(settings)) as TrainingState['settings'];
  }

  async #loop(): Promise<void> {
    const { model, train, steps, schedule, lossWeights, signal } = this.#options;
    const batches = train[Symbol.asyncIterator]();
    this.#clock = performance.now();
    let pending: Pending | undefined;
    for (let step = this.#step; step < steps && !signal?.aborted;) {
      const taken = await this.#take(batches);
      const lr = schedule(step);
      Object.assign(model.lossWeights, lossWeightsAt(lossWeights, step));
      const enqueued = await enqueueStep(taken, lr, this.#options, pending?.health);
      if (pending) await this.#settle(pending);
      pending = { step: ++step, lr, ...enqueued };
      if (this.#isDue(step)) {
        await this.#settle(pending);
        pending = undefined;
      }
    }
    if (pending) await this.#settle(pending);
    await batches.return();
  }

  async #take(batches: AsyncGenerator<Batch, void, void>): Promise<Batch[]> {
    const taken: Batch[] = [];
    while (taken.length < this.#options.accumulationSteps) {
      const { value } = await batches.next();
      if (value) taken.push(value);
    }
    return taken;
  }

  /** Waits for a step, looks whether it went well, and does what is due after it. */
  async #settle({ step, lr, result, health }: Pending): Promise<void> {
    const record = await this.#measure(step, lr, result);
    health.norm.dispose();
    health.loss.dispose();
    if (!Number.isFinite(record.loss) || !Number.isFinite(record.gradNorm)) {
      this.#report(record);
      throw new DivergenceError(
        `training diverged in step ${step}: loss ${record.loss}, gradient norm ${record.gradNorm}; ` +
          `neither this step nor a later one was applied; ${this.#describeCheckpoint()}`,
      );
    }
    this.#step = step;
    this.#tokens = record.tokens;
    this.#elapsedSeconds = record.elapsedSeconds;
    if (this.#isEvaluationDue(step)) {
      this.#validation = await this.#evaluate();
      if (this.#validation) {
        const { loss, perplexity } = this.#validation;
        record.validation = { loss, perplexity };
      }
    }
    this.#last = record;
    this.#report(record);
    if (this.#isCheckpointDue(step)) await this.#save();
    this.#clock = performance.now();
  }

  async #measure(step: number, lr: number, result: Promise<StepResult>): Promise<MetricsRecord> {
    const { train, accumulationSteps } = this.#options;
    let measured: StepResult;
    try {
      measured = await result;
    } catch (cause) {
      if (!(cause instanceof KernelError)) throw cause;
      throw new KernelError(
        `training step ${step} failed and was not applied: ${cause.message}; ${this.#describeCheckpoint()}`,
        { cause },
      );
    }
    const seconds = (performance.now() - this.#clock) / 1000;
    this.#clock = performance.now();
    const tokens = accumulationSteps * train.batchSize * train.sequenceLength;
    const { loss, crossEntropy, auxLoss, concentrationLoss, gradNorm, load, entropy } = measured;
    return {
      step,
      loss,
      crossEntropy,
      auxLoss,
      ...(load.length > 0 ? { concentrationLoss } : {}),
      lr,
      gradNorm,
      tokens: this.#tokens + tokens,
      tokensPerSecond: tokens / seconds,
      elapsedSeconds: this.#elapsedSeconds + seconds,
      ...(load.length > 0 ? { expertLoad: load, routerEntropy: entropy } : {}),
    };
  }

  #describeCheckpoint(): string {
    return this.#checkpoint === undefined
      ? 'no checkpoint had been written'
      : `the last checkpoint is ${this.#checkpoint}`;
  }

  #isDue(step: number): boolean {
    return this.#isEvaluationDue(step) || this.#isCheckpointDue(step);
  }

  #isEvaluationDue(step: number): boolean {
    const { validation, evaluateEvery = Infinity, steps } = this.#options;
    return validation !== undefined && (step % evaluateEvery === 0 || step === steps);
  }

  #isCheckpointDue(step: number): boolean {
    const { runDir, checkpointEvery, steps } = this.#options;
    return runDir !== undefined && (step % checkpointEvery === 0 || step === steps);
  }

  /** Undefined when the run is aborted meanwhile. */
  async #evaluate(): Promise<Evaluation | undefined> {
    const { model, validation, signal } = this.#options;
    if (validation === undefined) return undefined;
    try {
      return await evaluate(model, validation, { signal });
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return undefined;
      throw error;
    }
  }

  async #save(): Promise<void> {
    const { model, optimizer, train, tokenizer, runDir, keepCheckpoints } = this.#options;
    if (runDir === undefined) return;
    this.#flush();
    this.#checkpoint = await saveTrainingCheckpoint(runDir, {
      model,
      optimizer,
      train,
      tokenizer,
      settings: this.#settings(),
      step: this.#step,
      tokens: this.#tokens,
      elapsedSeconds: this.#elapsedSeconds,
    });
    this.#savedStep = this.#step;
    await rotateCheckpoints(runDir, keepCheckpoints, this.#step);
  }

  async #finish(): Promise<TrainingResult> {
    if (this.#step > this.#savedStep) await this.#save();
    const isFinished = this.#step >= this.#options.steps;
    // Nothing was left to do for a run that was resumed after its end.
    if (isFinished && this.#last === undefined) this.#validation = await this.#evaluate();
    return {
      step: this.#step,
      tokens: this.#tokens,
      elapsedSeconds: this.#elapsedSeconds,
      status: isFinished ? 'finished' : 'aborted',
      ...(this.#last ? { last: this.#last } : {}),
      ...(isFinished && this.#validation ? { validation: this.#validation } : {}),
      ...(this.#checkpoint === undefined ? {} : { checkpoint: this.#checkpoint }),
    };
  }
}

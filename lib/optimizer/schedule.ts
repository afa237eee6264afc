import { ValueError } from '../errors.js';

/** What a checkpoint stores of a schedule: plain JSON, from which `scheduleFrom` builds the same function. */
export type ScheduleDescription =
  | { type: 'constant'; lr: number; warmupSteps: number }
  | { type: 'linear' | 'cosine'; lr: number; minLr: number; warmupSteps: number; totalSteps: number };

/**
 * The learning rate as a pure function of the number of optimizer steps already taken (0 before the first).
 * As in Hugging Face's `get_*_schedule_with_warmup`, warm-up gives `lr * step / warmupSteps`, so the first step
 * of a warmed-up run has rate 0, and the peak `lr` is reached at `step == warmupSteps`.
 * A step that is not a non-negative integer is a ValueError.
 */
export interface Schedule {
  (step: number): number;
  /** From which `scheduleFrom` makes it again. */
  readonly description: ScheduleDescription;
}

/** A constant rate after a warm-up. */
export interface ConstantScheduleOptions {
  /** The peak learning rate, > 0. */
  lr: number;
  /** Steps of linear warm-up from 0, default 0. */
  warmupSteps?: number;
}

/** A rate that warms up and then falls. */
export interface DecayScheduleOptions extends ConstantScheduleOptions {
  /** Steps of the whole run, warm-up included; from here on the rate stays at its minimum. */
  totalSteps: number;
  /** The rate at `totalSteps`, from 0 (the default) to `lr`. */
  minLr?: number;
  /** `minLr` as a fraction of `lr`, from 0 to 1; give one of the two. */
  finalRatio?: number;
}

function requireSteps(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new ValueError(`schedule: ${name} must be a non-negative integer, got ${String(value)}`);
}

function requireLr(lr: number): number {
  if (Number.isFinite(lr) && lr > 0) return lr;
  throw new ValueError(`schedule: lr must be a finite number above 0, got ${String(lr)}`);
}

function resolveMinLr({ lr, minLr, finalRatio }: DecayScheduleOptions): number {
  if (minLr !== undefined && finalRatio !== undefined) {
    throw new ValueError('schedule: give minLr or finalRatio, not both');
  }
  if (finalRatio !== undefined && !(finalRatio >= 0 && finalRatio <= 1)) {
    throw new ValueError(`schedule: finalRatio must lie in [0, 1], got ${String(finalRatio)}`);
  }
  const value = minLr ?? lr * (finalRatio ?? 0);
  if (value >= 0 && value <= lr) return value;
  throw new ValueError(`schedule: minLr must lie in [0, lr = ${lr}], got ${String(value)}`);
}

function build(description: ScheduleDescription, afterWarmup: (step: number) => number): Schedule {
  const { lr, warmupSteps } = description;
  const schedule = (step: number): number => {
    requireSteps('step', step);
    return step < warmupSteps ? (lr * step) / warmupSteps : afterWarmup(step);
  };
  return Object.assign(schedule, { description: Object.freeze(description) });
}

/** From the peak to `minLr` along `shape`, which maps progress in [0, 1] to 1 .. 0. */
function decay(
  type: 'linear' | 'cosine',
  options: DecayScheduleOptions,
  shape: (progress: number) => number,
): Schedule {
  const lr = requireLr(options.lr);
  const minLr = resolveMinLr(options);
  const warmupSteps = requireSteps('warmupSteps', options.warmupSteps ?? 0);
  const totalSteps = requireSteps('totalSteps', options.totalSteps);
  if (totalSteps === 0 || warmupSteps > totalSteps) {
    throw new ValueError(
      `schedule: totalSteps must be at least 1 and not below warmupSteps = ${warmupSteps}, got ${totalSteps}`,
    );
  }
  return build({ type, lr, minLr, warmupSteps, totalSteps }, (step) => {
    if (step >= totalSteps) return minLr;
    return minLr + (lr - minLr) * shape((step - warmupSteps) / (totalSteps - warmupSteps));
  });
}

/** Warm-up, then `lr` for ever. Bad options are a ValueError, here and below. */
export function constantSchedule(options: ConstantScheduleOptions): Schedule {
  const lr = requireLr(options.lr);
  const warmupSteps = requireSteps('warmupSteps', options.warmupSteps ?? 0);
  return build({ type: 'constant', lr, warmupSteps }, () => lr);
}

/** Warm-up, then a straight line from `lr` to the minimum at `totalSteps`. */
export function linearSchedule(options: DecayScheduleOptions): Schedule {
  return decay('linear', options, (progress) => 1 - progress);
}

/** Warm-up, then half a cosine from `lr` to the minimum at `totalSteps`. */
export function cosineSchedule(options: DecayScheduleOptions): Schedule {
  return decay('cosine', options, (progress) => (1 + Math.cos(Math.PI * progress)) / 2);
}

/** The schedule that `description` was taken from; a description that no schedule has is a ValueError. */
export function scheduleFrom(description: ScheduleDescription): Schedule {
  switch (description.type) {
    case 'constant':
      return constantSchedule(description);
    case 'linear':
      return linearSchedule(description);
    case 'cosine':
      return cosineSchedule(description);
    default:
      throw new ValueError(
        `schedule: unknown type ${JSON.stringify((description as { type: unknown }).type)}, expected constant, linear or cosine`,
      );
  }
}

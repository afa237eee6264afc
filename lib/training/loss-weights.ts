import { ValueError } from '../errors.js';
import type { LossWeights } from '../losses/router-losses.js';

/** A weight that goes from one value to another in a straight line, and stays there. */
export interface LossWeightRamp {
  /** Before the ramp. Default 0. */
  from?: number;
  /** After it. */
  to: number;
  /** Optimizer steps before it begins. Default 0. */
  startStep?: number;
  /** Optimizer steps that it takes. */
  steps: number;
}

/** Weights of the routers' losses, each a number or a ramp. */
export type LossWeightSchedules = Partial<Record<keyof LossWeights, number | LossWeightRamp>>;

/** The weights after `step` optimizer steps; those that have no schedule are left out. */
export function lossWeightsAt(schedules: LossWeightSchedules, step: number): Partial<LossWeights> {
  return Object.fromEntries(
    Object.entries(schedules).map(([name, schedule]) => [name, weightAt(schedule, step)]),
  );
}

function weightAt(schedule: number | LossWeightRamp, step: number): number {
  if (typeof schedule === 'number') return schedule;
  const { from = 0, to, startStep = 0, steps } = schedule;
  return from + (to - from) * Math.min(1, Math.max(0, (step - startStep) / steps));
}

/** @throws ValueError for a weight below 0 or a ramp without length. */
export function requireLossWeights(schedules: LossWeightSchedules): void {
  for (const [name, schedule] of Object.entries(schedules)) {
    if (!['aux', 'concentration', 'z'].includes(name)) {
      throw new ValueError(`Trainer: unknown loss weight '${name}', expected aux, concentration or z`);
    }
    const ramp = typeof schedule === 'number' ? { to: schedule, steps: 1 } : schedule;
    for (const value of [ramp.from ?? 0, ramp.to]) {
      if (Number.isFinite(value) && value >= 0) continue;
      throw new ValueError(`Trainer: the weight of ${name} is ${value}, expected a number of at least 0`);
    }
    const { startStep = 0, steps } = ramp;
    if (!Number.isSafeInteger(steps) || steps < 1 || !Number.isSafeInteger(startStep) || startStep < 0) {
      throw new ValueError(
        `Trainer: the ramp of ${name} has startStep ${startStep} and steps ${steps}, expected integers from 0 and 1`,
      );
    }
  }
}

import test from 'ava';

import { ValueError } from '../lib/errors.js';
import {
  constantSchedule,
  cosineSchedule,
  linearSchedule,
  scheduleFrom,
  type ScheduleDescription,
} from '../lib/optimizer/schedule.js';

function closeTo(
  t: { true(value: boolean, message: string): boolean },
  actual: number,
  expected: number,
): void {
  t.true(Math.abs(actual - expected) <= 1e-15 + 1e-12 * Math.abs(expected), `${actual} is not ${expected}`);
}

test('warm-up rises linearly from 0 and reaches the peak at warmupSteps', (t) => {
  for (const schedule of [
    constantSchedule({ lr: 0.8, warmupSteps: 4 }),
    linearSchedule({ lr: 0.8, warmupSteps: 4, totalSteps: 12 }),
    cosineSchedule({ lr: 0.8, warmupSteps: 4, totalSteps: 12 }),
  ]) {
    closeTo(t, schedule(0), 0);
    closeTo(t, schedule(1), 0.2);
    closeTo(t, schedule(3), 0.6);
    closeTo(t, schedule(4), 0.8);
  }
});

test('constant stays at the peak', (t) => {
  const schedule = constantSchedule({ lr: 3e-4 });
  t.is(schedule(0), 3e-4);
  t.is(schedule(1e9), 3e-4);
});

test('linear falls in equal steps to the minimum and stays there', (t) => {
  const schedule = linearSchedule({ lr: 1, minLr: 0.2, warmupSteps: 2, totalSteps: 10 });
  closeTo(t, schedule(2), 1);
  closeTo(t, schedule(4), 0.8);
  closeTo(t, schedule(6), 0.6);
  closeTo(t, schedule(9), 0.3);
  t.is(schedule(10), 0.2);
  t.is(schedule(11), 0.2);
});

test('cosine passes through the values of cos at thirds and quarters', (t) => {
  const schedule = cosineSchedule({ lr: 2, finalRatio: 0.1, warmupSteps: 10, totalSteps: 22 });
  // minLr 0.2, span 1.8; progress 1/4, 1/3, 1/2, 2/3, 3/4 of 12 steps.
  closeTo(t, schedule(10), 2);
  closeTo(t, schedule(13), 0.2 + 1.8 * (0.5 + Math.SQRT2 / 4));
  closeTo(t, schedule(14), 0.2 + 1.8 * 0.75);
  closeTo(t, schedule(16), 0.2 + 1.8 * 0.5);
  closeTo(t, schedule(18), 0.2 + 1.8 * 0.25);
  closeTo(t, schedule(19), 0.2 + 1.8 * (0.5 - Math.SQRT2 / 4));
  closeTo(t, schedule(22), 0.2);
  closeTo(t, schedule(1000), 0.2);
});

test('a run that is all warm-up ends at the minimum', (t) => {
  const schedule = linearSchedule({ lr: 1, warmupSteps: 5, totalSteps: 5 });
  closeTo(t, schedule(4), 0.8);
  t.is(schedule(5), 0);
});

test('the description survives JSON and gives the same rates', (t) => {
  for (const schedule of [
    constantSchedule({ lr: 0.1, warmupSteps: 3 }),
    linearSchedule({ lr: 0.1, totalSteps: 7 }),
    cosineSchedule({ lr: 0.1, finalRatio: 0.25, warmupSteps: 2, totalSteps: 9 }),
  ]) {
    const restored = scheduleFrom(JSON.parse(JSON.stringify(schedule.description)) as ScheduleDescription);
    t.deepEqual(restored.description, schedule.description);
    for (let step = 0; step < 12; step++) t.is(restored(step), schedule(step));
  }
});

test('bad options and steps are ValueErrors that name the value', (t) => {
  const misuse: [() => unknown, RegExp][] = [
    [() => constantSchedule({ lr: 0 }), /lr must be .* got 0/],
    [() => constantSchedule({ lr: NaN }), /lr must be .* got NaN/],
    [() => constantSchedule({ lr: 1, warmupSteps: 1.5 }), /warmupSteps .* got 1.5/],
    [() => linearSchedule({ lr: 1, totalSteps: 0 }), /totalSteps must be at least 1/],
    [() => linearSchedule({ lr: 1, totalSteps: 4, warmupSteps: 5 }), /not below warmupSteps = 5, got 4/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4, minLr: 2 }), /minLr .* got 2/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4, minLr: -1 }), /minLr .* got -1/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4, finalRatio: 1.1 }), /finalRatio .* got 1.1/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4, finalRatio: 0, minLr: 0 }), /not both/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4 })(-1), /step .* got -1/],
    [() => cosineSchedule({ lr: 1, totalSteps: 4 })(NaN), /step .* got NaN/],
    [() => scheduleFrom({ type: 'step' } as unknown as ScheduleDescription), /unknown type "step"/],
  ];
  for (const [run, message] of misuse) t.throws(run, { instanceOf: ValueError, message });
});

import { peakKinds } from '../../lib/native/binding.js';
import { native } from '../../lib/native/load.js';
import { cudaPeak } from './cuda-peaks.js';
import { benchDevice } from './device.js';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

export function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/**
 * Floating-point operations (or bytes of memory) per second that the device reaches: a CPU as measured right now, a
 * GPU by its data sheet.
 */
export function measurePeak(kind: (typeof peakKinds)[number]): number {
  if (benchDevice === 'cuda') return cudaPeak(kind);
  return native.measurePeak(peakKinds.indexOf(kind), native.numThreads());
}

export interface Timing {
  /** Median seconds of one run. */
  seconds: number;
  /** Median peak, measured before each run: neighbours slow both alike. */
  peak: number;
  /** Median over the repeats of (work / seconds) / peak. */
  share: number;
}

/** On a GPU as many runs are enqueued before one wait, so that neither launching nor waiting counts. */
const ENQUEUED_SECONDS = 0.05;
const MOST_ENQUEUED = 100;

/** Seconds of one run out of `count`, from the first's launch until the device has done the last. */
async function secondsOf(run: () => void | Promise<void>, count: number): Promise<number> {
  await native.synchronize();
  const start = performance.now();
  for (let i = 0; i < count; i++) await run();
  await native.synchronize();
  return (performance.now() - start) / 1000 / count;
}

/** Median seconds of `run`, which enqueues its work or waits for it, after a first run that does not count. */
export async function medianSeconds(run: () => void | Promise<void>, repeats = 7): Promise<number> {
  const { seconds } = await timeAgainstPeak(run, { kind: 'read', work: 0, repeats });
  return seconds;
}

/**
 * Times `run`, which enqueues its work or waits for it, in turn with the peak of `kind`.
 * @param work operations or bytes of one run.
 */
export async function timeAgainstPeak(
  run: () => void | Promise<void>,
  { kind, work, repeats = 7 }: { kind: (typeof peakKinds)[number]; work: number; repeats?: number },
): Promise<Timing> {
  await secondsOf(run, 1);
  let count = 1;
  if (benchDevice === 'cuda') {
    count = Math.ceil(ENQUEUED_SECONDS / (await secondsOf(run, 1)));
    count = Math.min(count, MOST_ENQUEUED);
  }
  const seconds: number[] = [];
  const peaks: number[] = [];
  for (let i = 0; i < repeats; i++) {
    peaks.push(measurePeak(kind));
    seconds.push(await secondsOf(run, count));
  }
  return {
    seconds: median(seconds),
    peak: median(peaks),
    share: median(seconds.map((s, i) => work / s / (peaks[i] as number))),
  };
}

/** What a section returns: a table for people and the same rows as JSON. */
export interface Section {
  name: string;
  rows: Record<string, string | number>[];
}

import { peakKinds } from '../../lib/native/binding.js';
import { native } from '../../lib/native/load.js';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

/** Floating-point operations (or bytes read from memory) per second that this machine reaches right now. */
export function measurePeak(kind: (typeof peakKinds)[number]): number {
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

/**
 * Times `run`, which must wait for its result, in turn with the peak of `kind`.
 * @param work operations or bytes of one run.
 */
export async function timeAgainstPeak(
  run: () => Promise<void>,
  { kind, work, repeats = 7 }: { kind: (typeof peakKinds)[number]; work: number; repeats?: number },
): Promise<Timing> {
  await run();
  const seconds: number[] = [];
  const peaks: number[] = [];
  for (let i = 0; i < repeats; i++) {
    peaks.push(measurePeak(kind));
    const start = performance.now();
    await run();
    seconds.push((performance.now() - start) / 1000);
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

import { readFileSync } from 'node:fs';

/** Seconds that this process's main thread, where JavaScript runs, has spent on a processor; null where unknown. */
export function mainThreadSeconds(): number | null {
  try {
    return Number(readFileSync('/proc/self/schedstat', 'utf8').split(' ')[0]) / 1e9;
  } catch {
    return null;
  }
}

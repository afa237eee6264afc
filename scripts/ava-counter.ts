import { stripVTControlCharacters } from 'node:util';

export interface TestCounts {
  passed: number;
  failed: number;
  skipped: number;
}

// The second glyph of each pair is what ava falls back to on terminals without Unicode.
const PASSED = /^ {2}[✔√] /;
const FAILED = /^ {2}[✘×] /;
const SKIPPED = /^ {2}- \[skip\] /;
const END_OF_LISTING = /^ {2}[─-]$/;

/**
 * Counts what ava's default reporter lists. ava's own closing summary leaves out the passed tests when any failed, and
 * its TAP reporter dies on a timeout. Every line with a cross is one failure: a failed test or hook, a file that
 * crashed, exited, holds no test or left tests pending, and a timeout. What follows the listing is details only.
 */
export class AvaCounter {
  readonly #counts: TestCounts = { passed: 0, failed: 0, skipped: 0 };
  #pending = '';
  #listing = true;

  /** The next piece of ava's standard output, cut anywhere. */
  add(text: string): void {
    const lines = (this.#pending + text).split('\n');
    this.#pending = lines.pop() ?? '';
    for (const line of lines) this.#addLine(stripVTControlCharacters(line).replace(/\r$/, ''));
  }

  /** The totals. A run that failed without saying so, or in which no test ran, has one failure at least. */
  finish(exitCode: number | null): TestCounts {
    if (this.#pending !== '') this.add('\n');
    const { passed, failed, skipped } = this.#counts;
    const unexplained = failed === 0 && (exitCode !== 0 || passed === 0);
    return { passed, failed: unexplained ? 1 : failed, skipped };
  }

  #addLine(line: string): void {
    if (END_OF_LISTING.test(line)) this.#listing = false;
    if (!this.#listing) return;
    if (PASSED.test(line)) this.#counts.passed++;
    else if (FAILED.test(line)) this.#counts.failed++;
    else if (SKIPPED.test(line)) this.#counts.skipped++;
  }
}

/** `N passed, N failed`, and `, N skipped` when there are any. */
export function formatCounts({ passed, failed, skipped }: TestCounts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

import type { Section } from './measure.js';

/** What `npm run bench -- --json` writes, as far as a comparison reads it. */
export interface Report {
  machine: { processor: string; threads: number; instructionSet: string; peakF32: number };
  sections: Section[];
}

export interface Change {
  section: string;
  /** The columns of the row that tell which case it is. */
  row: string;
  column: string;
  before: number;
  after: number;
  /** How many times as good as before: above 1 is better, whether the figure should be high or low. */
  ratio: number;
  /** `ratio` beyond the noise of this kind of figure. */
  verdict: 'better' | 'worse' | 'same';
}

export interface Comparison {
  changes: Change[];
  /** Rows and sections of the old report that the new one lacks. */
  missing: string[];
  sameMachine: boolean;
}

/** Noise of one figure: a share was measured in turn with the peak, a time was not. */
export const NOISE = { share: 0.1, absolute: 0.2 } as const;

type Measure = { kind: keyof typeof NOISE; higherIsBetter: boolean };

/** The machine's own figures, and goals. */
const isContext = (column: string): boolean => /^(f32|bf16|read) peak\b|\btarget\b|\blimit\b/.test(column);

/** What a column's name says about it; null for labels, and for figures that are no matter of speed or memory. */
function measureOf(column: string, value: string | number): Measure | null {
  if (isContext(column)) return null;
  if (/\bshare\b|\bMFU\b|\btimes\b|\bratio\b/.test(column)) return { kind: 'share', higherIsBetter: true };
  if (/^[\d.]+ \([\d.]+ ms\)$/.test(String(value))) return { kind: 'share', higherIsBetter: true };
  if (/(tokens|GF|GB)\/s/.test(column)) return { kind: 'absolute', higherIsBetter: true };
  if (/\b(ms|us|s\/step|KB|MB|bytes|forks)\b/.test(column))
    return { kind: 'absolute', higherIsBetter: false };
  return null;
}

const isLabel = (column: string, value: string | number): boolean =>
  !isContext(column) &&
  measureOf(column, value) === null &&
  (typeof value === 'string' || Number.isInteger(value));

function labelsOf(row: Section['rows'][number]): string {
  const labels = Object.entries(row).filter(([column, value]) => isLabel(column, value));
  return labels.map(([column, value]) => `${column} ${value}`).join(', ');
}

function verdictOf(ratio: number, noise: number): Change['verdict'] {
  if (ratio < 1 - noise) return 'worse';
  return ratio > 1 / (1 - noise) ? 'better' : 'same';
}

/** A section's name up to the colon: what follows may tell of the run. */
const titleOf = ({ name }: Section): string => name.split(':')[0] ?? name;

function compareRows(
  section: string,
  [before, after]: [Section['rows'][number], Section['rows'][number]],
  noiseFactor: number,
): Change[] {
  return Object.entries(before).flatMap(([column, value]) => {
    const measure = measureOf(column, value);
    const [old, now] = [parseFloat(String(value)), parseFloat(String(after[column]))];
    if (!measure || !(old > 0) || !(now > 0)) return [];
    const ratio = measure.higherIsBetter ? now / old : old / now;
    const verdict = verdictOf(ratio, Math.min(0.95, NOISE[measure.kind] * noiseFactor));
    return [{ section, row: labelsOf(before), column, before: old, after: now, ratio, verdict }];
  });
}

/**
 * Every figure of speed and memory of `before` against the same row of `after`. Rows are the same when their labels are.
 * @param noiseFactor multiplies NOISE, for machines with loud neighbours.
 */
export function compareReports(before: Report, after: Report, noiseFactor = 1): Comparison {
  const changes: Change[] = [];
  const missing: string[] = [];
  for (const old of before.sections) {
    const now = after.sections.find((each) => titleOf(each) === titleOf(old));
    if (!now) {
      missing.push(old.name);
      continue;
    }
    for (const row of old.rows) {
      const match = now.rows.find((each) => labelsOf(each) === labelsOf(row));
      if (match) changes.push(...compareRows(old.name, [row, match], noiseFactor));
      else missing.push(`${old.name}: ${labelsOf(row)}`);
    }
  }
  const identity = ({ machine: m }: Report): string => `${m.processor}/${m.threads}/${m.instructionSet}`;
  return { changes, missing, sameMachine: identity(before) === identity(after) };
}

/** @throws Error when this is not what `--json` writes. */
export function parseReport(text: string, name: string): Report {
  const value: unknown = JSON.parse(text);
  const { machine, sections } = (value ?? {}) as Partial<Report>;
  const isSection = (s: Partial<Section> | null): boolean =>
    typeof s?.name === 'string' && Array.isArray(s.rows);
  if (typeof machine?.threads !== 'number' || !Array.isArray(sections) || !sections.every(isSection)) {
    throw new Error(`${name} is not a report that npm run bench -- --json wrote`);
  }
  return { machine, sections };
}

import { join } from 'node:path';
import { writeFileAtomic } from '../io/atomic.js';
import type { ReportSample, ReportSummary } from './report.js';

/** Writes `summary.json` into a run's directory, for its report. */
export async function writeSummary(runDir: string, summary: ReportSummary): Promise<void> {
  const { validation, ...rest } = summary;
  const short = validation && { loss: validation.loss, perplexity: validation.perplexity };
  const content = { ...(short ? { validation: short } : {}), ...rest };
  await writeFileAtomic(join(runDir, 'summary.json'), `${JSON.stringify(content, null, 2)}\n`);
}

/** Writes `samples.jsonl` into a run's directory, for its report. */
export async function writeSamples(runDir: string, samples: readonly ReportSample[]): Promise<void> {
  const lines = samples.map((sample) => `${JSON.stringify(sample)}\n`);
  await writeFileAtomic(join(runDir, 'samples.jsonl'), lines.join(''));
}

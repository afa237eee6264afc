import { readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { z } from 'zod';

import { DataError } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';
import { meanBalance, readMetrics, type BlockLoad, type MetricsRecord } from './metrics.js';
import { escapeHtml, renderHeatMap } from './heat-map.js';
import { formatDuration } from './progress.js';
import { SCRIPT, STYLE } from './report-page.js';
import { averageLoad, buildSeries, loadHistory } from './report-series.js';

const sampleSchema = z.object({
  prompt: z.string(),
  /** What the model wrote after the prompt. */
  text: z.string(),
  /** The step of the model that wrote it. */
  step: z.int().nonnegative().exactOptional(),
});
export type ReportSample = z.infer<typeof sampleSchema>;

const perplexity = z.number().positive();
const summarySchema = z.object({
  /** The final model on the validation set. */
  validation: z.object({ loss: z.number(), perplexity }).exactOptional(),
  /** Perplexities of count-based models on the same validation set, with the same tokens. */
  baselines: z
    .object({ unigram: perplexity.exactOptional(), kneserNeyBigram: perplexity.exactOptional() })
    .exactOptional(),
  parameters: z.int().positive().exactOptional(),
  /** Parameters that one token uses. */
  activeParameters: z.int().positive().exactOptional(),
});
export type ReportSummary = z.infer<typeof summarySchema>;

export interface ReportInput {
  /** What to list as the configuration; a nested object becomes a group of its own. */
  config?: Record<string, unknown>;
  metrics: readonly MetricsRecord[];
  samples?: readonly ReportSample[];
  summary?: ReportSummary;
}

/** JSON that no HTML parser takes for a tag, wherever it stands. */
function embedJson(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}

function number(value: number | undefined, digits = 4): string {
  if (value === undefined) return '–';
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString('en');
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(digits)));
}

function rows(entries: readonly (readonly [string, string])[]): string {
  return entries
    .map(([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`)
    .join('');
}

function lastValidation({ metrics, summary }: ReportInput): { loss: number; perplexity: number } | undefined {
  return summary?.validation ?? metrics.findLast(({ validation }) => validation)?.validation;
}

function renderTiles(input: ReportInput): string {
  const last = input.metrics.at(-1);
  const validation = lastValidation(input);
  const loaded = input.metrics.findLast(({ expertLoad }) => expertLoad);
  const tiles: (readonly [string, string])[] = [
    ['steps', number(last?.step)],
    ['training tokens', number(last?.tokens)],
    ['time', last ? formatDuration(last.elapsedSeconds) : '–'],
    ['last training loss', number(last?.crossEntropy)],
    ['validation loss', number(validation?.loss)],
    ['validation perplexity', number(validation?.perplexity)],
    ['tokens per second', last && last.elapsedSeconds > 0 ? number(last.tokens / last.elapsedSeconds) : '–'],
    ['expert balance', loaded?.expertLoad ? number(meanBalance(loaded.expertLoad), 3) : '–'],
  ];
  return `<dl class="tiles">${tiles.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join('')}</dl>`;
}

/** A loss that was NaN or infinite has no place on a chart, so it is told in words. */
function renderNotices({ metrics }: ReportInput): string {
  if (metrics.length === 0) return '<p class="notice">No steps have been recorded yet.</p>';
  const broken = metrics.filter(({ loss, gradNorm }) => !Number.isFinite(loss) || !Number.isFinite(gradNorm));
  if (broken.length === 0) return '';
  const steps = broken.length === 1 ? '1 step' : `${broken.length} steps`;
  return `<p class="notice">The loss or the gradient norm was not finite in ${steps}, first in step ${broken[0]?.step}.</p>`;
}

function renderPerplexities(input: ReportInput): string {
  const { baselines } = input.summary ?? {};
  const models: [string, number | undefined][] = [
    ['this model', lastValidation(input)?.perplexity],
    ['bigram (Kneser-Ney)', baselines?.kneserNeyBigram],
    ['unigram', baselines?.unigram],
  ];
  const known = models.filter((entry): entry is [string, number] => Number.isFinite(entry[1]));
  if (known.length === 0) return '';
  const highest = Math.max(...known.map(([, value]) => value));
  const lines = known.map(([name, value]) => {
    const width = ((100 * value) / highest).toFixed(1);
    return `<tr><th scope="row">${name}</th><td class="number">${number(value)}</td><td class="meter-cell"><div class="meter" style="width:${width}%"></div></td></tr>`;
  });
  return `<section><h2>Validation perplexity</h2><p class="muted">Lower is better.</p><table class="plain">${lines.join('')}</table></section>`;
}

function renderNumbers(input: ReportInput): string {
  const { metrics, summary } = input;
  const last = metrics.at(-1);
  const validation = lastValidation(input);
  const losses = metrics.flatMap((record) => record.validation?.loss ?? []).filter(Number.isFinite);
  const entries: (readonly [string, string])[] = [
    ['Parameters', number(summary?.parameters)],
    ['Active parameters per token', number(summary?.activeParameters)],
    ['Steps', number(last?.step)],
    ['Training tokens', number(last?.tokens)],
    ['Loss of the last step (cross-entropy + weighted auxiliary)', number(last?.loss, 5)],
    ['Cross-entropy of the last step, nats per token', number(last?.crossEntropy, 5)],
    ['Balancing loss of the last step', number(last?.auxLoss, 5)],
    ['Concentration loss of the last step', number(last?.concentrationLoss, 5)],
    ['Gradient norm of the last step', number(last?.gradNorm)],
    ['Validation loss, nats per token', number(validation?.loss, 5)],
    ['Lowest validation loss', losses.length > 0 ? number(Math.min(...losses), 5) : '–'],
    ['Validation perplexity', number(validation?.perplexity, 5)],
    ['Perplexity, Kneser-Ney bigram', number(summary?.baselines?.kneserNeyBigram, 5)],
    ['Perplexity, unigram', number(summary?.baselines?.unigram, 5)],
  ];
  const known = entries.filter(([, value]) => value !== '–');
  return known.length === 0
    ? ''
    : `<section><h2>Final numbers</h2><table class="plain">${rows(known)}</table></section>`;
}

function renderChart(id: string, title: string): string {
  return `<figure role="img" aria-label="${title} by step"><div class="bar"><h3>${title}</h3><span class="muted" id="value-${id}"></span></div><div class="chart" id="chart-${id}"></div></figure>`;
}

/** The charts' numbers for those who do not see them: some thirty steps, evenly spread. */
function renderMetricsTable(metrics: readonly MetricsRecord[]): string {
  const stride = Math.ceil(metrics.length / 30);
  const chosen = metrics.filter((record, index) => index % stride === 0 || record === metrics.at(-1));
  const columns: [string, (record: MetricsRecord) => number | undefined][] = [
    ['step', (record) => record.step],
    ['loss', (record) => record.loss],
    ['cross-entropy', (record) => record.crossEntropy],
    ['validation', (record) => record.validation?.loss],
    ['balancing', (record) => record.auxLoss],
    ['concentration', (record) => record.concentrationLoss],
    ['learning rate', (record) => record.lr],
    ['gradient norm', (record) => record.gradNorm],
    ['tokens/s', (record) => record.tokensPerSecond],
    ['balance', (record) => record.expertLoad && meanBalance(record.expertLoad)],
  ];
  const head = columns.map(([name]) => `<th scope="col" class="number">${name}</th>`).join('');
  const body = chosen.map(
    (record) =>
      `<tr>${columns.map(([, value]) => `<td class="number">${number(value(record))}</td>`).join('')}</tr>`,
  );
  return `<details><summary>The same as a table</summary><div class="scroll"><table class="plain"><thead><tr>${head}</tr></thead><tbody>${body.join('')}</tbody></table></div></details>`;
}

function renderCharts({ metrics }: ReportInput): string {
  if (metrics.length === 0) return '';
  const small: [string, string][] = [
    ['lr', 'Learning rate'],
    ['grad-norm', 'Gradient norm'],
    ['tokens-per-second', 'Tokens per second'],
    ['total-loss', 'Loss with auxiliary part'],
    ['aux-loss', 'Balancing loss'],
    ['concentration', 'Concentration loss'],
    ['entropy', 'Entropy of experts (all / given the token), nats'],
    ['balance', 'Expert balance (attention / MLP)'],
  ];
  return `<section><div class="bar"><h2>Cross-entropy</h2><label><input type="checkbox" id="log-steps"> logarithmic steps</label></div>
<p class="muted">Nats per token. Drag over a range to zoom in, double-click to zoom out.</p>
<figure role="img" aria-label="Training and validation cross-entropy by step"><div class="chart" id="chart-loss"></div></figure>
<div class="small-charts">${small.map(([id, title]) => renderChart(id, title)).join('\n')}</div>
${renderMetricsTable(metrics)}</section>`;
}

function renderLoad(records: readonly MetricsRecord[]): string {
  if (records.length === 0) return '';
  const end = records.slice(-Math.ceil(records.length / 10));
  const kinds: [keyof BlockLoad, string][] = [
    ['attention', 'Attention experts'],
    ['mlp', 'MLP experts'],
  ];
  const tables = kinds.flatMap(([kind, title]) => [
    renderHeatMap(averageLoad(end, kind), title, 'data-period="end"'),
    renderHeatMap(averageLoad(records, kind), title, 'data-period="all" hidden'),
  ]);
  const blocks = averageLoad(records, 'mlp').map(
    (_, block) => `<option value="${block}">block ${block}</option>`,
  );
  return `<section><div class="bar"><h2>Load of the experts</h2><label>over <select id="load-period"><option value="end">the last tenth of the steps</option><option value="all">the whole run</option></select></label></div>
<p class="muted">Each row is a router: the share of its rows, in percent, that went to each expert. The darkest cell of a table is its highest share.</p>
<div class="scroll">${tables.join('\n')}</div></section>
<section><div class="bar"><h2>Load over time</h2><span><label>router <select id="history-kind"><option value="mlp">MLP</option><option value="attention">attention</option></select></label> <label>of <select id="history-block">${blocks.join('')}</select></label></span></div>
<p class="muted">From the first step (left) to the last (right); 0 %<span class="scale"></span><span id="history-highest"></span></p>
<div class="scroll"><table class="heat time" id="history"></table></div></section>`;
}

function renderSamples({ samples = [] }: ReportInput): string {
  if (samples.length === 0) return '';
  const items = samples.map(
    ({ prompt, text, step }) =>
      `<h3>${step === undefined ? 'Sample' : `Step ${step.toLocaleString('en')}`}</h3><pre><span class="prompt">${escapeHtml(prompt)}</span>${escapeHtml(text)}</pre>`,
  );
  return `<section class="samples"><h2>Generated text</h2><p class="muted">The prompt is in grey.</p>${items.join('\n')}</section>`;
}

function isGroup(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function renderConfig({ config = {} }: ReportInput): string {
  const table = (group: Record<string, unknown>): string => {
    const entries = Object.entries(group).map(([name, value]): [string, string] => [
      name,
      typeof value === 'string' ? value : (JSON.stringify(value) ?? 'undefined'),
    ]);
    return `<table class="plain">${rows(entries)}</table>`;
  };
  const single = Object.fromEntries(Object.entries(config).filter(([, value]) => !isGroup(value)));
  const parts = Object.keys(single).length > 0 ? [table(single)] : [];
  for (const [name, value] of Object.entries(config)) {
    if (isGroup(value)) parts.push(`<h3>${escapeHtml(name)}</h3>${table(value)}`);
  }
  return parts.length === 0
    ? ''
    : `<section><h2>Configuration</h2><details open><summary>${Object.keys(config).length} entries</summary>${parts.join('')}</details></section>`;
}

async function readUplot(): Promise<{ script: string; style: string }> {
  const { resolve } = createRequire(import.meta.url);
  const [script, style] = await Promise.all(
    ['uplot/dist/uPlot.iife.min.js', 'uplot/dist/uPlot.min.css'].map((name) =>
      readFile(resolve(name), 'utf8'),
    ),
  );
  return { script: script?.replaceAll('</script', '<\\/script') ?? '', style: style ?? '' };
}

/**
 * A run as one HTML page that needs no network and no other file: loss curves, what the step measured, the load of
 * every expert, final numbers, generated text and configuration. Long runs are drawn with means of neighbouring steps.
 * Everything that comes from outside is escaped.
 */
export async function renderReport(input: ReportInput): Promise<string> {
  const loaded = input.metrics.filter(({ expertLoad }) => expertLoad && expertLoad.length > 0);
  const uplot = await readUplot();
  const data = { series: buildSeries(input.metrics), history: loadHistory(loaded) };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>Training report</title>
<style>${uplot.style}${STYLE}</style>
</head>
<body>
<header><h1>Training report</h1><p>A ModuleFormer language model: mixtures of attention and MLP experts.</p>
${renderNotices(input)}${renderTiles(input)}</header>
<main>
${[renderPerplexities(input), renderCharts(input), renderLoad(loaded), renderSamples(input), renderNumbers(input), renderConfig(input)].filter(Boolean).join('\n')}
</main>
<script type="application/json" id="data">${embedJson(data)}</script>
<script>${uplot.script}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new DataError(`${file}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

function parse<T>(where: string, text: string, schema: z.ZodType<T>): T {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new DataError(`${where}: not JSON: ${(error as Error).message}`, { cause: error });
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) throw new DataError(`${where}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

async function readSamples(file: string): Promise<ReportSample[]> {
  const lines = ((await readOptional(file)) ?? '').split('\n');
  return lines.flatMap((line, index) =>
    line === '' ? [] : [parse(`${file}, line ${index + 1}`, line, sampleSchema)],
  );
}

/**
 * Writes `report.html` into a run's directory and returns its path. Read from there: `metrics.jsonl`, and where they
 * exist `config.json` (any object), `samples.jsonl` (a ReportSample per line) and `summary.json` (a ReportSummary).
 * A missing directory or metrics file, or a file that is not what it should be, is a DataError that names it.
 */
export async function writeReport(runDir: string): Promise<string> {
  const file = (name: string): string => path.join(runDir, name);
  if (!(await stat(runDir).catch(() => undefined))?.isDirectory()) {
    throw new DataError(`${runDir}: there is no such run directory`);
  }
  const metrics = await readMetrics(file('metrics.jsonl'));
  const config = await readOptional(file('config.json'));
  const summary = await readOptional(file('summary.json'));
  const html = await renderReport({
    metrics,
    samples: await readSamples(file('samples.jsonl')),
    ...(config === undefined
      ? {}
      : { config: parse(file('config.json'), config, z.record(z.string(), z.unknown())) }),
    ...(summary === undefined ? {} : { summary: parse(file('summary.json'), summary, summarySchema) }),
  });
  await writeFileAtomic(file('report.html'), html);
  return file('report.html');
}

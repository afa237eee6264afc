import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Script } from 'node:vm';
import test from 'ava';

import { DataError } from '../lib/errors.js';
import type { BlockLoad, MetricsRecord } from '../lib/training/metrics.js';
import { averageLoad, buildSeries, loadHistory } from '../lib/training/report-series.js';
import { renderReport, writeReport } from '../lib/training/report.js';

function record(step: number, changes: Partial<MetricsRecord> = {}): MetricsRecord {
  return {
    step,
    loss: 6,
    crossEntropy: 5,
    auxLoss: 1,
    lr: 1e-3,
    gradNorm: 0.5,
    tokens: 100 * step,
    tokensPerSecond: 50,
    elapsedSeconds: 2 * step,
    ...changes,
  };
}

const load = (attention: number[], mlp: number[]): BlockLoad => ({ attention, mlp });

/** The page's JSON and scripts, as a browser cuts them out: up to the first closing tag. */
function cutScripts(html: string): { data: unknown; scripts: string[] } {
  const elements = [...html.matchAll(/<script([^>]*)>([^]*?)<\/script>/g)];
  const [data, ...scripts] = elements.map((element) => element[2] ?? '');
  return { data: JSON.parse(data ?? '') as unknown, scripts };
}

test('a short run keeps every value, and gaps where nothing finite was measured', (t) => {
  const series = buildSeries([
    record(1),
    record(2, { crossEntropy: NaN, validation: { loss: 4, perplexity: Math.exp(4) } }),
    record(5, { crossEntropy: 3, expertLoad: [load([1, 1], [4, 0])] }),
  ]);
  t.deepEqual(series.step, [1, 2, 5]);
  t.deepEqual(series.crossEntropy, [5, null, 3]);
  t.deepEqual(series.validation, [null, 4, null]);
  t.deepEqual(series.attentionBalance, [null, null, 1]);
  t.deepEqual(series.mlpBalance, [null, null, 0]);
  t.deepEqual(series.smoothed, [null, null, null]);
});

test('a long run is drawn with means of neighbours, and loses no validation', (t) => {
  const records = Array.from({ length: 12_000 }, (_, index) =>
    record(index + 1, {
      crossEntropy: index,
      ...(index === 6005 ? { validation: { loss: 4, perplexity: Math.exp(4) } } : {}),
    }),
  );
  const series = buildSeries(records);
  t.is(series.step.length, 1200);
  t.deepEqual(series.step.slice(0, 2), [10, 20]);
  t.is(series.step.at(-1), 12_000);
  t.deepEqual(series.crossEntropy.slice(0, 2), [4.5, 14.5]);
  t.is(series.validation[600], 4);
  t.is(series.validation.filter((value) => value !== null).length, 1);
  // A centred mean of a straight line is the line itself, at both ends too.
  t.deepEqual(series.smoothed.slice(0, 2), [4.5, 14.5]);
  t.is(series.smoothed.at(-1), series.crossEntropy.at(-1) ?? NaN);
});

test('loads become shares of the rows, on average and over time', (t) => {
  const records = [
    record(1, { expertLoad: [load([1, 3], [0, 0, 8])] }),
    record(2, { expertLoad: [load([3, 5], [8, 8, 0])] }),
  ];
  t.deepEqual(averageLoad(records, 'attention'), [[333, 667]]);
  t.deepEqual(averageLoad(records, 'mlp'), [[333, 333, 333]]);
  t.deepEqual(loadHistory(records), {
    step: [1, 2],
    attention: [
      [
        [250, 750],
        [375, 625],
      ],
    ],
    mlp: [
      [
        [0, 0, 1000],
        [500, 500, 0],
      ],
    ],
  });
  const long = Array.from({ length: 1000 }, (_, index) =>
    record(index + 1, { expertLoad: [load([1], [1, 0])] }),
  );
  t.is(loadHistory(long).step.length, 72);
});

test('the page is whole in itself, and its scripts parse', async (t) => {
  const html = await renderReport({
    metrics: [record(1), record(2, { expertLoad: [load([1, 3], [2, 1, 1])] })],
    summary: { validation: { loss: 3, perplexity: 20.1 }, baselines: { unigram: 900, kneserNeyBigram: 210 } },
    config: { n_layer: 1, training: { lr: 0.001 } },
  });
  t.notRegex(html, /(src|href)\s*=|@import|url\(/i);
  t.true(html.includes("default-src 'none'"));
  const { data, scripts } = cutScripts(html);
  t.like(data, { series: { step: [1, 2] }, history: { step: [2], mlp: [[[500, 250, 250]]] } });
  t.is(scripts.length, 2);
  for (const script of scripts) t.notThrows(() => new Script(script));
  t.true(html.includes('block 0, expert 1: 75.0 % of the rows, 1.50 times an even share'));
  for (const text of ['20.1', '900', '210', 'n_layer', '0.001']) t.true(html.includes(text), text);
});

test('every element that the script looks up is in the page', async (t) => {
  const html = await renderReport({ metrics: [record(1, { expertLoad: [load([1, 3], [2, 1, 1])] })] });
  const script = cutScripts(html).scripts.at(-1) ?? '';
  const ids = [...script.matchAll(/getElementById\('([^']+[^-])'\)/g)].map((match) => match[1] ?? '');
  const charts = [...script.matchAll(/\{ id: '([^']+)'/g)].map((match) => `chart-${match[1]}`);
  t.true(ids.length > 5 && charts.length === 9);
  for (const id of [...ids, ...charts]) t.true(html.includes(`id="${id}"`), id);
});

test('nothing from outside gets out of its place', async (t) => {
  const hostile = `</script><script>alert(1)</script><!-- <b a="1" b='2'>&amp;`;
  const html = await renderReport({
    metrics: [record(1)],
    samples: [{ prompt: hostile, text: `${hostile}\u2028`, step: 1 }],
    config: { [hostile]: hostile, group: { [hostile]: [hostile] } },
  });
  t.false(html.includes('alert(1)</script>'));
  t.false(html.includes('<b a='));
  t.is(cutScripts(html).scripts.length, 2);
  const escaped =
    '&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!-- &lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;amp;';
  t.is(html.split(escaped).length - 1, 5);
});

test('a run without steps, and one with a single step, have a report', async (t) => {
  const none = await renderReport({ metrics: [] });
  t.true(none.includes('No steps have been recorded yet.'));
  t.false(none.includes('id="chart-loss"'));
  const one = await renderReport({ metrics: [record(1, { loss: NaN, crossEntropy: NaN })] });
  t.true(one.includes('not finite in 1 step, first in step 1'));
  t.true(one.includes('<td class="number">NaN</td>'));
});

async function runDir(files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'report-'));
  for (const [name, content] of Object.entries(files)) await writeFile(path.join(dir, name), content);
  return dir;
}

const METRICS = `${JSON.stringify(record(1))}\n{"step": 2, "lo`;

test('writeReport reads what is in the directory', async (t) => {
  const dir = await runDir({
    'metrics.jsonl': METRICS,
    'config.json': '{"n_embd": 48}',
    'summary.json': '{"parameters": 1234567}',
    'samples.jsonl': '{"prompt": "Once", "text": " upon a time"}\n',
  });
  const file = await writeReport(dir);
  t.is(file, path.join(dir, 'report.html'));
  const html = await readFile(file, 'utf8');
  for (const text of ['n_embd', '1,234,567', 'Once</span> upon a time']) t.true(html.includes(text), text);
  t.is(
    await writeReport(await runDir({ 'metrics.jsonl': '' })).then((name) => path.basename(name)),
    'report.html',
  );
});

test('a file that is not what it should be is named', async (t) => {
  const misuse: [Record<string, string>, RegExp][] = [
    [{}, /metrics\.jsonl: there is no such metrics file/],
    [{ 'metrics.jsonl': '{}\n' }, /metrics\.jsonl, line 1/],
    [{ 'metrics.jsonl': METRICS, 'config.json': '[1]' }, /config\.json: /],
    [{ 'metrics.jsonl': METRICS, 'config.json': '{' }, /config\.json: not JSON/],
    [{ 'metrics.jsonl': METRICS, 'summary.json': '{"parameters": -1}' }, /summary\.json: [^]*parameters/],
    [
      { 'metrics.jsonl': METRICS, 'samples.jsonl': '{"prompt": "a", "text": "b"}\n{}\n' },
      /samples\.jsonl, line 2/,
    ],
  ];
  for (const [files, message] of misuse) {
    const dir = await runDir({ ...files, 'report.html': 'the old report' });
    await t.throwsAsync(writeReport(dir), { instanceOf: DataError, message });
    t.is(await readFile(path.join(dir, 'report.html'), 'utf8'), 'the old report');
  }
  await t.throwsAsync(writeReport('/no/such/run'), {
    instanceOf: DataError,
    message: /no such run directory/,
  });
});

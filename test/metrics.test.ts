import { execFileSync } from 'node:child_process';
import { appendFile, mkdtemp, readFile, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';

import { DataError, ValueError } from '../lib/errors.js';
import {
  loadBalance,
  meanBalance,
  MetricsWriter,
  readMetrics,
  type MetricsRecord,
} from '../lib/training/metrics.js';

function record(step: number, changes: Partial<MetricsRecord> = {}): MetricsRecord {
  return {
    step,
    loss: 5 / step,
    crossEntropy: 4.5 / step,
    auxLoss: 0.5,
    lr: 1e-3,
    gradNorm: 0.7,
    tokens: step * 128,
    tokensPerSecond: 1000,
    elapsedSeconds: step * 0.128,
    ...changes,
  };
}

async function metricsFile(): Promise<string> {
  return path.join(await mkdtemp(path.join(os.tmpdir(), 'metrics-')), 'run', 'metrics.jsonl');
}

async function writeRun(file: string, steps: number, resumedStep?: number): Promise<void> {
  const writer = await MetricsWriter.open(file, resumedStep === undefined ? {} : { resumedStep });
  for (let step = (resumedStep ?? 0) + 1; step <= steps; step++) writer.write(record(step));
  await writer.close();
}

test('records come back as written, with loads, validation and numbers that JSON lacks', async (t) => {
  const file = await metricsFile();
  const records = [
    record(1, { expertLoad: [{ attention: [3, 5], mlp: [0, 4, 4] }] }),
    record(2, { loss: NaN, gradNorm: Infinity, auxLoss: -Infinity }),
    record(7, { validation: { loss: 2, perplexity: Math.exp(2) } }),
  ];
  const writer = await MetricsWriter.open(file);
  for (const each of records) writer.write(each);
  await writer.close();
  await writer.close();
  t.deepEqual(await readMetrics(file), records);
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  t.is(lines.length, 3);
  t.like(JSON.parse(lines[1] ?? ''), { loss: 'NaN', gradNorm: 'Infinity', auxLoss: '-Infinity' });
});

test('lines wait in the buffer until flush', async (t) => {
  const file = await metricsFile();
  const writer = await MetricsWriter.open(file);
  writer.write(record(1));
  t.deepEqual(await readMetrics(file), []);
  writer.flush();
  t.deepEqual(await readMetrics(file), [record(1)]);
  await writer.close();
});

test('the timer flushes by itself', async (t) => {
  const file = await metricsFile();
  const writer = await MetricsWriter.open(file, { flushSeconds: 0.02 });
  writer.write(record(1));
  const deadline = Date.now() + 10_000;
  while ((await readMetrics(file)).length === 0 && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.deepEqual(await readMetrics(file), [record(1)]);
  await writer.close();
});

test('process.exit() without close() loses nothing', async (t) => {
  const file = await metricsFile();
  const module = pathToFileURL(path.resolve('lib/training/metrics.ts')).href;
  const code = `
    const { MetricsWriter } = await import(${JSON.stringify(module)});
    const writer = await MetricsWriter.open(${JSON.stringify(file)});
    writer.write(${JSON.stringify(record(1))});
    process.exit(0);`;
  execFileSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', code]);
  t.deepEqual(await readMetrics(file), [record(1)]);
});

test('resuming drops later steps and gives the file of an uninterrupted run', async (t) => {
  const [whole, resumed] = [await metricsFile(), await metricsFile()];
  await writeRun(whole, 10);
  await writeRun(resumed, 8);
  await writeRun(resumed, 10, 5);
  t.is(await readFile(resumed, 'utf8'), await readFile(whole, 'utf8'));
});

test('resuming after a kill repairs the last line, wherever it was torn', async (t) => {
  const file = await metricsFile();
  await writeRun(file, 3);
  const content = await readFile(file, 'utf8');
  const lastLine = content.lastIndexOf('\n', content.length - 2) + 1;
  for (let length = lastLine; length <= content.length; length++) {
    await writeFile(file, content.slice(0, length));
    const expected = length >= content.length - 1 ? 3 : 2;
    t.is((await readMetrics(file)).length, expected, `cut at ${length}`);
    const writer = await MetricsWriter.open(file, { resumedStep: 3 });
    writer.write(record(4));
    await writer.close();
    const steps = (await readMetrics(file)).map(({ step }) => step);
    t.deepEqual(steps, expected === 3 ? [1, 2, 3, 4] : [1, 2, 4], `cut at ${length}`);
  }
});

test('a run does not overwrite the metrics of another, unless it resumes at 0', async (t) => {
  const file = await metricsFile();
  await writeRun(file, 2);
  await t.throwsAsync(MetricsWriter.open(file), { instanceOf: DataError, message: /resumedStep/ });
  t.is((await readMetrics(file)).length, 2);
  await writeRun(file, 1, 0);
  t.deepEqual(await readMetrics(file), [record(1)]);
});

test('a bad line is a DataError with its number, and resuming leaves the file alone', async (t) => {
  const file = await metricsFile();
  const bad: [string, RegExp][] = [
    ['{"step": 3\n', /line 3: not a JSON record/],
    ['\n', /line 3: not a JSON record/],
    [`${JSON.stringify({ ...record(3), loss: null })}\n`, /line 3: [^]*loss/],
    [`${JSON.stringify({ ...record(3), loss: 'high' })}\n`, /line 3: [^]*loss/],
    [`${JSON.stringify(record(2))}\n`, /line 3: step 2 does not follow step 2/],
  ];
  await writeRun(file, 2);
  const { length } = await readFile(file);
  for (const [line, message] of bad) {
    await truncate(file, length);
    await appendFile(file, line);
    const before = await readFile(file, 'utf8');
    await t.throwsAsync(readMetrics(file), { instanceOf: DataError, message });
    await t.throwsAsync(MetricsWriter.open(file, { resumedStep: 2 }), { instanceOf: DataError, message });
    t.is(await readFile(file, 'utf8'), before);
  }
  await t.throwsAsync(readMetrics(`${file}.none`), {
    instanceOf: DataError,
    message: /no such metrics file/,
  });
});

test('misuse of a writer is a ValueError and writes nothing', async (t) => {
  const file = await metricsFile();
  await t.throwsAsync(MetricsWriter.open(file, { resumedStep: -1 }), { instanceOf: ValueError });
  await t.throwsAsync(MetricsWriter.open(file, { flushSeconds: 0 }), { instanceOf: ValueError });
  const writer = await MetricsWriter.open(file);
  writer.write(record(2));
  t.throws(() => writer.write(record(2)), { instanceOf: ValueError, message: /step 2 must be .* above 2/ });
  t.throws(() => writer.write(record(2.5)), { instanceOf: ValueError });
  t.throws(() => writer.write(record(3, { tokens: NaN })), { instanceOf: ValueError, message: /tokens/ });
  await writer.close();
  t.throws(() => writer.write(record(3)), { instanceOf: ValueError, message: /closed/ });
  t.deepEqual(await readMetrics(file), [record(2)]);
});

test('balance is 1 for an even load, 0 for one expert, and the entropy in between', (t) => {
  t.is(loadBalance([4, 4, 4, 4]), 1);
  t.is(loadBalance([0, 9, 0]), 0);
  t.is(loadBalance([5]), 1);
  t.is(loadBalance([0, 0]), NaN);
  // Half on one, a quarter on two of four: entropy 1.5 bits of 2.
  t.true(Math.abs(loadBalance([2, 1, 1, 0]) - 0.75) < 1e-15);
  t.true(Math.abs(meanBalance([{ attention: [2, 1, 1, 0], mlp: [1, 1] }]) - 0.875) < 1e-15);
  t.is(meanBalance([{ attention: [], mlp: [3, 0] }]), 0);
  t.is(meanBalance([]), NaN);
});

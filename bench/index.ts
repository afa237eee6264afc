// npm run bench -- SECTION... [--json FILE]: measures this machine against its own peak, and this package on it.
// npm run bench -- SECTION... --device cuda: on the GPU, with the addon of npm run build:cuda; exits with 3 without one.
// npm run bench -- compare OLD.json NEW.json [--noise FACTOR]: exit code 1 when anything got worse, beyond noise.
import { benchDevice } from './support/device.js'; // before the addon is loaded
import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { native } from '../lib/native/load.js';
import { compareReports, parseReport, type Report } from './support/compare.js';
import { gpuName } from './support/cuda-peaks.js';
import { measurePeak, type Section } from './support/measure.js';

async function compare(files: readonly string[], noiseFactor: number): Promise<number> {
  const read = async (file: string): Promise<Report> => parseReport(await readFile(file, 'utf8'), file);
  const [before, after] = files;
  if (before === undefined || after === undefined || files.length > 2 || !(noiseFactor > 0)) {
    console.error('bench: expected compare OLD.json NEW.json [--noise FACTOR], a positive number');
    return 2;
  }
  let reports: [Report, Report];
  try {
    reports = [await read(before), await read(after)];
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
    return 2;
  }
  const { changes, missing, sameMachine } = compareReports(...reports, noiseFactor);
  if (!sameMachine)
    console.warn('bench: the reports are of different machines, thread counts or instruction sets');
  for (const what of missing) console.warn(`bench: not measured again: ${what}`);
  const changed = changes.filter(({ verdict }) => verdict !== 'same');
  console.table(changed.map(({ ratio, ...change }) => ({ ...change, ratio: Number(ratio.toFixed(2)) })));
  const worse = changed.filter(({ verdict }) => verdict === 'worse').length;
  console.log(`${changes.length} figures compared: ${worse} worse, ${changed.length - worse} better`);
  return worse > 0 ? 1 : 0;
}

const here = new URL('.', import.meta.url);
const known = readdirSync(here)
  .filter((name) => name.endsWith('.ts') && name !== 'index.ts')
  .map((name) => name.slice(0, -3));

const { values, positionals } = parseArgs({
  options: {
    json: { type: 'string' },
    noise: { type: 'string', default: '1' },
    device: { type: 'string' },
  },
  allowPositionals: true,
});
if (positionals[0] === 'compare') process.exit(await compare(positionals.slice(1), Number(values.noise)));
/** Those that need what this package does not install run when they are named. */
const optional = ['openblas', 'onednn', 'llama-cpp', 'pytorch'];
/** Those that measure on `--device cuda` too. */
const onCuda = ['gemm', 'attention', 'train', 'decode', 'dense', 'pytorch'];
const available = benchDevice === 'cuda' ? onCuda : known;
const sections = positionals.length > 0 ? positionals : available.filter((name) => !optional.includes(name));
const unknown = sections.filter((name) => !available.includes(name));
if (unknown.length > 0) {
  console.error(`bench: unknown section '${unknown.join("', '")}', expected any of ${available.join(', ')}`);
  process.exit(2);
}

measurePeak('f32'); // the threads start here, so that no figure counts it
const machine = {
  ...(benchDevice === 'cuda' ? { gpu: gpuName() } : {}),
  processor: cpus()[0]?.model ?? 'unknown',
  node: process.version,
  threads: native.numThreads(),
  instructionSet: native.instructionSets().chosen,
  bf16Dot: native.instructionSets().bf16Dot,
  peakF32: measurePeak('f32'),
  peakBf16: measurePeak('bf16'),
  readBandwidth: measurePeak('read'),
};
console.table({
  ...machine,
  peakF32: `${(machine.peakF32 / 1e9).toFixed(0)} GF/s`,
  peakBf16: `${(machine.peakBf16 / 1e9).toFixed(0)} GF/s`,
  readBandwidth: `${(machine.readBandwidth / 1e9).toFixed(1)} GB/s`,
});

const results: Section[] = [];
for (const name of sections) {
  const { run } = (await import(new URL(`${name}.ts`, here).href)) as { run: () => Promise<Section> };
  const section = await run();
  console.log(`\n${section.name}`);
  console.table(section.rows);
  results.push(section);
}
if (values.json) await writeFile(values.json, `${JSON.stringify({ machine, sections: results }, null, 2)}\n`);

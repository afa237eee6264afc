// npm run bench -- SECTION... [--json FILE]: measures this machine against its own peak, and this package on it.
import { readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { native } from '../lib/native/load.js';
import { measurePeak, type Section } from './support/measure.js';

const here = new URL('.', import.meta.url);
const known = readdirSync(here)
  .filter((name) => name.endsWith('.ts') && name !== 'index.ts')
  .map((name) => name.slice(0, -3));

const { values, positionals } = parseArgs({ options: { json: { type: 'string' } }, allowPositionals: true });
const sections = positionals.length > 0 ? positionals : known;
const unknown = sections.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`bench: unknown section '${unknown.join("', '")}', expected any of ${known.join(', ')}`);
  process.exit(2);
}

const machine = {
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

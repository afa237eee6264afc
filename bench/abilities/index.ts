// npm run abilities -- EXPERIMENT [--quick] [--out DIR] [--threads N] [--seeds 0,1]: the paper's abilities, measured on real text of
// several domains. npm run abilities -- report FILE...: tables and pictures of bench/RESULTS.md from such results.
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { instructionSets, numThreads, setNumThreads } from '../../lib/system.js';
import { efficiency } from './efficiency.js';
import { emergence } from './emergence.js';
import { extend } from './extend.js';
import { probes } from './probes.js';
import { report } from './report.js';
import { full, quick } from './scales.js';
import { specialise } from './specialise.js';
import { openWorkbench, type Workbench } from './workbench.js';

const experiments: Record<string, (bench: Workbench) => Promise<object>> = {
  efficiency,
  extend,
  specialise,
  emergence,
  probes,
};

const { values, positionals } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    out: { type: 'string', default: 'runs/abilities' },
    threads: { type: 'string' },
    seeds: { type: 'string' },
    arms: { type: 'string', default: '' },
  },
  allowPositionals: true,
});
const [name = '', ...rest] = positionals;
if (name === 'report') {
  await report(rest);
  process.exit(0);
}
const experiment = Object.hasOwn(experiments, name) ? experiments[name] : undefined;
if (!experiment || rest.length > 0) {
  console.error(
    `abilities: expected one of ${Object.keys(experiments).join(', ')}, report, got '${positionals.join(' ')}'`,
  );
  process.exit(2);
}
if (values.threads !== undefined) setNumThreads(Number(values.threads));
const scale = { ...(values.quick ? quick : full) };
if (values.seeds !== undefined) scale.seeds = values.seeds.split(',').map(Number);
const start = performance.now();
const result = await experiment(await openWorkbench(scale, { arms: new RegExp(values.arms) }));
const seconds = (performance.now() - start) / 1000;
const file = path.join(values.out, `${name}${values.quick ? '-quick' : ''}.json`);
await mkdir(values.out, { recursive: true });
const machine = {
  processor: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  threads: numThreads(),
  instructionSet: instructionSets().chosen,
  node: process.version,
};
await writeFile(file, `${JSON.stringify({ name, scale, machine, seconds, ...result }, null, 1)}\n`);
console.log(`${seconds.toFixed(0)} s; ${file}`);

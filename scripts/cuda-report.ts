// `npm run cuda:report [-- --build DIR] [--all] [--json FILE]`: what ptxas said of every kernel in a build of
// `npm run build:cuda`, per architecture: registers, shared memory, spills, and the occupancy at the launches that the
// emulated tests recorded (`npm run test:cuda-emulated`). Exits with 1 when a kernel of a GEMM or of attention spills.
// Without --all it lists the kernels of GEMM and attention and whatever spills.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  demangle,
  occupancy,
  parsePtxas,
  readLaunches,
  type Kernel,
  type Launch,
} from './support/kernel-resources.js';

interface Row extends Kernel {
  source: string;
  /** The recorded launch with the most shared memory; null where none was seen. */
  launch: Launch | null;
  /** Share of an SM's warps that can be resident at this launch. */
  occupancy: number | null;
}

/** Products and attention: where a spill costs most. */
const mustNotSpill = /^(gemm|grouped_gemm|attention|stick_breaking|softmax_attention|quantize)/;

function objectsOf(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return files.filter((file) => file.endsWith('.cu.o.ptxas')).map((file) => join(folder, file));
}

function rowsOf(folder: string, launches: ReadonlyMap<string, Launch>): Row[] {
  const rows = objectsOf(folder).flatMap((file) =>
    parsePtxas(readFileSync(file, 'utf8')).map((kernel) => ({
      ...kernel,
      source: basename(file, '.o.ptxas'),
    })),
  );
  const names = demangle(rows.map(({ name }) => name));
  return rows.map((row, i) => {
    const name = names[i] as string;
    const launch = launches.get(name) ?? null;
    return { ...row, name, launch, occupancy: launch && occupancy(row, launch) };
  });
}

/** The kernel's name and its template arguments, without namespaces and parameters. */
function shortName(name: string): string {
  const plain = name.replaceAll(/\(anonymous namespace\)::|mf::cuda::|mf::|^void /g, '');
  return plain.replace(/\((?!.*>\().*$|\([^()]*\)$/, '');
}

function print(architecture: string, rows: readonly Row[]): void {
  console.log(`\n${architecture}`);
  console.table(
    rows.map(({ name, source, registers, shared, stack, spillStores, spillLoads, launch, occupancy }) => ({
      source,
      kernel: shortName(name),
      registers,
      'static shared': shared,
      'dynamic shared': launch?.shared ?? '',
      threads: launch?.threads ?? '',
      occupancy: occupancy === null ? '' : `${Math.round(100 * occupancy)}%`,
      stack,
      'spilled bytes': spillStores + spillLoads,
    })),
  );
}

const { values } = parseArgs({
  options: {
    build: { type: 'string', default: 'build-cuda' },
    all: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const rows = rowsOf(values.build, readLaunches('build-cuda-plain'));
if (rows.length === 0) {
  console.error(
    `cuda:report: ${values.build} holds no output of ptxas, expected a build by npm run build:cuda`,
  );
  process.exit(2);
}
const architectures = [...new Set(rows.map(({ architecture }) => architecture))].sort();
for (const architecture of architectures) {
  const here = rows.filter((row) => row.architecture === architecture);
  const spills = here.filter(({ spillStores, spillLoads }) => spillStores + spillLoads > 0);
  const shown = here.filter((row) => values.all || mustNotSpill.test(row.source) || spills.includes(row));
  print(architecture, shown);
  console.log(`${architecture}: ${here.length} kernels, ${spills.length} of them spill`);
}
const faulty = rows.filter((row) => mustNotSpill.test(row.source) && row.spillStores + row.spillLoads > 0);
for (const row of faulty) {
  const bytes = `${row.spillStores} bytes stored, ${row.spillLoads} loaded`;
  console.error(`cuda:report: ${shortName(row.name)} (${row.source}, ${row.architecture}) spills: ${bytes}`);
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
process.exitCode = faulty.length > 0 ? 1 : 0;

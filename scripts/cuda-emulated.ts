// `npm run test:cuda-emulated -- [OP | --all] [--build NAME]...`: the CUDA kernels on the CPU, in three builds against
// the emulator.
//   plain       the emulator's own tests; op specs with threads in rising and in reverse order; golden cases, training
//               and generation in these and in a random order
//   races       the op specs in random order, with the race detector
//   sanitizers  the op specs in reverse order with early copies, under the address and undefined-behaviour sanitizers
// Products of bf16 run as on sm_90a; the specs of ops that multiply run once more with the kernels of other devices.
// With an op, only its specs. With --all everything in every order, and with early copies too. With --build, only those
// builds.
import { spawn, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatCounts, type TestCounts } from './ava-counter.js';
import { sanitizerEnvironment } from './support/sanitizers.js';

type Copies = 'late' | 'early';
type Schedule = [order: 'forward' | 'reverse' | `random:${number}`, copies: Copies];

interface Build {
  name: 'plain' | 'races' | 'sanitizers';
  options: string[];
  env?: NodeJS.ProcessEnv;
  schedule: Schedule;
}

interface Run {
  name: string;
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
}

const builds: readonly Build[] = [
  { name: 'plain', options: ['--CDMF_NATIVE_TESTS=ON'], schedule: ['forward', 'late'] },
  { name: 'races', options: ['--CDMF_CUDA_RACES=ON'], schedule: ['random:1', 'late'] },
  {
    name: 'sanitizers',
    options: ['--CDMF_SANITIZE=address', '--CDMF_WERROR=ON'],
    schedule: ['reverse', 'early'],
  },
];
const everySchedule: readonly Schedule[] = (['forward', 'reverse', 'random:1', 'random:2'] as const).flatMap(
  (order) => (['late', 'early'] as const).map((copies): Schedule => [order, copies]),
);
const models = [
  'test/golden.test.ts',
  'test/device-training.test.ts',
  'test/device-memory.test.ts',
  'test/device-graph.test.ts',
  'test/program.test.ts',
  'test/decoder.test.ts',
];
const multiplying = ['grouped_gemm', 'linear_cross_entropy', 'quantize'];
/** A run of its own each: the two cores then never wait for one long test. */
const CONCURRENCY = 2;

const folder = (build: Build): string => `build-cuda-${build.name}`;

/** Where the launches go from which `npm run cuda:report` computes occupancy: offsets in this very binary. */
const launchesOf = (build: Build): string => join(process.cwd(), folder(build), 'launches.txt');

function compile(build: Build): void {
  const shared = ['--CDMF_CUDA=EMULATED', '--CDMF_ISAS=generic', '--log-level', 'warn'];
  const args = ['cmake-js', 'build', '--out', folder(build), ...shared, ...build.options];
  const { status } = spawnSync('npx', args, { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  rmSync(launchesOf(build), { force: true });
}

function avaRun(
  build: Build,
  [order, copies]: Schedule,
  args: string[],
  warpgroups: 'on' | 'off' = 'on',
): Run {
  const env = {
    ...(build.name === 'sanitizers' ? sanitizerEnvironment() : {}),
    MODULEFORMER_ADDON: join(process.cwd(), folder(build), 'Release', 'moduleformer.node'),
    MODULEFORMER_TEST_DEVICE: 'cuda',
    MODULEFORMER_EMULATION_ORDER: order,
    MODULEFORMER_EMULATION_COPIES: copies,
    MODULEFORMER_EMULATION_WARPGROUPS: warpgroups,
    ...(build.name === 'plain' ? { MODULEFORMER_EMULATION_LAUNCHES: launchesOf(build) } : {}),
  };
  const name = `${build.name}, ${order} order, ${copies} copies, warpgroups ${warpgroups}: ${args[0]}`;
  return { name, command: 'npx', args: ['tsx', 'scripts/test.ts', '--timeout=20m', ...args], env };
}

const specsOf = (ops: readonly string[]): string[] => [
  'test/ops.test.ts',
  ...ops.flatMap((op) => ['-m', `${op}*`]),
];

function runsOf(build: Build, op: string | undefined, all: boolean): Run[] {
  const asElsewhere = (ops: readonly string[]): Run[] =>
    ops.length === 0 ? [] : [avaRun(build, build.schedule, specsOf(ops), 'off')];
  if (op) {
    return [
      avaRun(build, build.schedule, specsOf([op])),
      ...asElsewhere(multiplying.filter((name) => name.startsWith(op))),
    ];
  }
  if (build.name !== 'plain') {
    const files = ['test/ops.test.ts', ...(all ? models : [])];
    return [avaRun(build, build.schedule, files), ...asElsewhere(multiplying)];
  }
  const own = {
    name: "the emulator's own tests",
    command: join(folder(build), 'native_tests'),
    args: [],
    env: {},
  };
  const usual = (): Run[] => [
    avaRun(build, build.schedule, ['test/ops.test.ts']),
    avaRun(build, ['reverse', 'late'], ['test/ops.test.ts']),
    ...(['forward', 'reverse', 'random:1'] as const).map((order) => avaRun(build, [order, 'late'], models)),
  ];
  return [
    own,
    ...(all
      ? everySchedule.map((schedule) => avaRun(build, schedule, ['test/ops.test.ts', ...models]))
      : usual()),
    ...asElsewhere(multiplying),
  ];
}

/** Runs it, shows what failed, and reads the counts of its last line: a run without them has failed. */
async function execute({ name, command, args, env }: Run): Promise<TestCounts> {
  const start = performance.now();
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => void (output += text));
  }
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const last = /(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$/.exec(output);
  const [passed, failed, skipped] = [1, 2, 3].map((i) => Number(last?.[i] ?? 0)) as [number, number, number];
  const broken = failed === 0 && (!last || status !== 0);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  if (status !== 0 || broken) console.log(output.replaceAll(/^ *(✔|ok) .*\n/gm, ''));
  const counts = { passed, failed: broken ? 1 : failed, skipped };
  console.log(`${name}: ${formatCounts(counts)} (${seconds} s)`);
  return counts;
}

const { values, positionals } = parseArgs({
  options: { all: { type: 'boolean', default: false }, build: { type: 'string', multiple: true } },
  allowPositionals: true,
});
const [op, ...rest] = positionals;
const names = values.build ?? builds.map(({ name }) => name);
const chosen = builds.filter(({ name }) => names.includes(name));
if (rest.length > 0 || (op && values.all) || chosen.length < names.length) {
  console.error(
    'test:cuda-emulated: expected an op, or --all, or nothing; --build plain, races or sanitizers',
  );
  process.exit(2);
}
for (const build of chosen) compile(build);
const waiting = chosen.flatMap((build) => runsOf(build, op, values.all));
const total: TestCounts = { passed: 0, failed: 0, skipped: 0 };
async function work(): Promise<void> {
  for (let run = waiting.shift(); run; run = waiting.shift()) {
    const counts = await execute(run);
    for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += counts[key];
  }
}
await Promise.all(Array.from({ length: CONCURRENCY }, work));
console.log(`\n${formatCounts(total)}`);
process.exitCode = total.failed > 0 ? 1 : 0;

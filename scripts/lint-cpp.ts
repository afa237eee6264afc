// `npm run lint:cpp [-- files]`: clang-tidy over native/, with the checks of .clang-tidy. The kernels, which are compiled
// once per instruction set, are checked as generic code. Needs clang-tidy 19 or later: older ones fail on <ranges>.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';

const BUILD = 'build-lint';
const OLDEST = 19;

interface CompileCommand {
  file: string;
  command: string;
}

function versionOf(tool: string): number {
  const { stdout, error } = spawnSync(tool, ['--version'], { encoding: 'utf8' });
  return error ? 0 : Number(/version (\d+)/.exec(stdout)?.[1] ?? 0);
}

/** Configures a build of the generic kernels, builds nothing, and returns the files that it would compile. */
function configure(): string[] {
  const options = ['--CDMF_ISAS=generic', '--log-level', 'warn'];
  const { status } = spawnSync('npx', ['cmake-js', 'configure', '--out', BUILD, ...options], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (status !== 0) process.exit(1);
  const database = JSON.parse(readFileSync(join(BUILD, 'compile_commands.json'), 'utf8')) as CompileCommand[];
  const files = database.map(({ file }) => relative('.', file)).filter((file) => file.startsWith('native'));
  return [...new Set(files)].sort();
}

/** Runs clang-tidy on a file; returns what it reports, or nothing. */
function check(tool: string, file: string): Promise<string> {
  return new Promise((done, reject) => {
    const child = spawn(tool, ['--quiet', '-p', BUILD, file], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += String(text)));
    child.on('error', reject);
    child.on('close', (status) => done(status === 0 ? '' : output));
  });
}

async function main(): Promise<number> {
  const tool = ['clang-tidy-19', 'clang-tidy'].find((name) => versionOf(name) >= OLDEST);
  if (!tool) {
    console.error(
      `lint:cpp: clang-tidy ${OLDEST} or later was not found (Debian's package is clang-tidy-19)`,
    );
    return 2;
  }
  const wanted = process.argv.slice(2).map((file) => relative('.', resolve(file)));
  const queue = configure().filter((file) => wanted.length === 0 || wanted.includes(file));
  const total = queue.length;
  let failed = 0;
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const report = await check(tool, file);
      if (report === '') continue;
      failed++;
      console.error(report);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  console.log(`${tool}: ${total - failed} of ${total} files are clean`);
  return failed === 0 && total > 0 ? 0 : 1;
}

process.exitCode = await main();

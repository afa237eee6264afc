// `npm run test:install [-- --no-prebuild | options of prebuild]`: packs everything and uses it as a stranger would. In
// empty folders, with nothing but node, npm and a shell on PATH, the packages are installed and then imported, required,
// type-checked, trained and generated with; that with CUDA kernels too where it was packed. Other dependencies come from
// the registry. Closes with `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { platformName } from '../lib/native/platform.js';
import type { BackendDescription } from '../lib/system.js';
import { MOST_BYTES } from './support/package.js';

const PACKAGES = resolve('build-prebuild/packages');
const FIXTURES = resolve('test/fixtures/install');
const work = mkdtempSync(join(tmpdir(), 'moduleformer-install-'));

function exec(command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, env, encoding: 'utf8' });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

/** The environment of a machine without compilers. */
function bareEnvironment(): NodeJS.ProcessEnv {
  const bin = join(work, 'bin');
  mkdirSync(bin);
  const npm = exec(
    'sh',
    ['-c', 'command -v npm && command -v npx && command -v sh && command -v env'],
    '.',
    process.env,
  );
  for (const tool of [process.execPath, ...npm.trim().split('\n')])
    symlinkSync(tool, join(bin, tool.slice(dirname(tool).length + 1)));
  // What npm tells the scripts it runs is about this package, not about those to install.
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(npm_(package|lifecycle|config_local)|MODULEFORMER_|CXX?$)/.test(name),
  );
  return { ...Object.fromEntries(kept), PATH: bin, npm_config_audit: 'false', npm_config_fund: 'false' };
}

function packed(pattern: RegExp): string {
  const name = readdirSync(PACKAGES).find((file) => pattern.test(file));
  if (!name) throw new Error(`there is no ${pattern} in ${PACKAGES}`);
  return join(PACKAGES, name);
}

let passed = 0;
let failed = 0;
function check(name: string, body: () => void): void {
  try {
    body();
    passed++;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}\n${error instanceof Error ? error.message : String(error)}`);
  }
}

function expect(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}

const options = process.argv.slice(2);
if (!options.includes('--no-prebuild')) exec('npm', ['run', 'prebuild', '--', ...options], '.', process.env);
const env = bareEnvironment();
const main = packed(/^moduleformer-\d/);
const platform = packed(new RegExp(`^moduleformer-${platformName()}-\\d`));
const isCudaPacked = readdirSync(PACKAGES).some((name) => name.includes('-cuda-'));

/** A folder with the fixtures in which packages were installed. */
function project(name: string, ...npmArgs: string[]): string {
  const folder = join(work, name);
  cpSync(FIXTURES, folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, private: true, type: 'module' }));
  exec('npm', ['install', '--no-save', ...npmArgs], folder, env);
  return folder;
}
const node = (folder: string, ...args: string[]): string => exec('node', args, folder, env);

check('packed sizes', () => {
  const sizes = { main: statSync(main).size, cpu: statSync(platform).size };
  console.log(`      ${JSON.stringify(sizes)} bytes of at most ${JSON.stringify(MOST_BYTES)}`);
  expect(sizes.main <= MOST_BYTES.main && sizes.cpu <= MOST_BYTES.cpu, 'a package has grown too large');
});
check('publint', () => console.log(exec('npx', ['publint', '--strict', main], '.', process.env).trim()));
check('types of every kind of import', () =>
  console.log(exec('npx', ['attw', main, '--profile', 'esm-only', '--no-emoji'], '.', process.env).trim()),
);

check('installed without a compiler: ten steps of training, then generation', () => {
  const folder = project('whole', main, platform);
  console.log(node(folder, 'train.mjs').trim());
  check('required from CommonJS', () => console.log(node(folder, 'required.cjs').trim()));
  check('the command line', () => {
    const { addon } = JSON.parse(exec('npx', ['moduleformer', 'inspect', '--json'], folder, env)) as {
      addon: { what: string };
    };
    expect(addon.what === `@moduleformer/${platformName()}`, `it runs ${addon.what}`);
  });
  check('types under NodeNext, without skipLibCheck', () => {
    mkdirSync(join(folder, 'node_modules/@types'), { recursive: true });
    symlinkSync(resolve('node_modules/@types/node'), join(folder, 'node_modules/@types/node'));
    symlinkSync(resolve('node_modules/undici-types'), join(folder, 'node_modules/undici-types'));
    exec(
      process.execPath,
      [resolve('node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json'],
      folder,
      process.env,
    );
  });
  for (const major of ['22', '24']) {
    const other = join(work, `node-${major}`);
    mkdirSync(other);
    const pack = `node-${process.platform}-${process.arch}@${major}`;
    const { status, stderr } = spawnSync('npm', ['install', '--prefix', other, pack], {
      env,
      encoding: 'utf8',
    });
    const binary = join(other, `node_modules/node-${process.platform}-${process.arch}/bin/node`);
    if (status !== 0) console.log(`left out: Node ${major} (${stderr.trim().split('\n')[0]})`);
    else check(`under Node ${major}`, () => console.log(exec(binary, ['train.mjs'], folder, env).trim()));
  }
});
check('with --omit=optional and the platform package by name', () => {
  console.log(node(project('omit', '--omit=optional', main, platform), 'train.mjs').trim());
});
/** With a GPU the CUDA package is used; without one it is passed over, and whoever looks or asks is told why. */
function checkCuda(): void {
  const folder = project('cuda', main, platform, packed(/-cuda-\d/));
  console.log(node(folder, 'train.mjs').trim());
  const describe =
    "import { describeBackend } from 'moduleformer'; console.log(JSON.stringify(describeBackend()))";
  const backend = JSON.parse(node(folder, '--input-type=module', '-e', describe)) as BackendDescription;
  console.log(`      ${backend.summary}`);
  const inspected = exec('npx', ['moduleformer', 'inspect'], folder, env);
  const cuda = `@moduleformer/${platformName()}-cuda`;
  if (backend.cuda.names.length > 0) {
    expect(backend.addon.what === cuda, `it runs ${backend.addon.what}`);
    return;
  }
  expect(backend.addon.what === `@moduleformer/${platformName()}`, `it runs ${backend.addon.what}`);
  const reason = new RegExp(`${cuda}: installed, but .*(driver|device)`);
  expect(reason.test(backend.summary), `no reason in: ${backend.summary}`);
  expect(reason.test(inspected), `no reason in what inspect says:\n${inspected}`);
  const ask =
    "import { tensor } from 'moduleformer'; try { tensor([1], { device: 'cuda' }) } catch (e) { console.log(e.message) }";
  const error = node(folder, '--input-type=module', '-e', ask);
  expect(reason.test(error), `no reason in the error: ${error}`);
}
if (isCudaPacked) check('with the CUDA package: used where a GPU answers, else a reason', checkCuda);
else console.log('left out: the CUDA package, which was not built');

check('without the platform package: one error that says all', () => {
  const folder = project('absent', '--omit=optional', main);
  const { status, stderr } = spawnSync('node', ['train.mjs'], { cwd: folder, env, encoding: 'utf8' });
  expect(status === 1, `it ended with ${status}`);
  for (const part of [
    'could not be loaded',
    `@moduleformer/${platformName()}: not installed`,
    'npx moduleformer build',
  ])
    expect(stderr.includes(part), `'${part}' is missing in:\n${stderr}`);
  expect(exec('npx', ['moduleformer', '--version'], folder, env).trim() !== '', '--version needs no addon');
});

rmSync(work, { recursive: true });
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

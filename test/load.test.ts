import { spawnSync } from 'node:child_process';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { addonSource } from '../lib/native/load.js';
import { cudaPackage, isMusl, platformName } from '../lib/native/platform.js';
import { temporaryDir } from './support/data.js';

const VERSION = '1.2.3';
/** A stand-in for the addon, which says who it is and what it was started with. */
const addon = (name: string, whyNoDevice = 'built without CUDA'): string =>
  `let started;
  module.exports = {
    start(classes, whyNoCuda) { started = whyNoCuda; },
    cudaDevices: () => ({ names: [], reason: '${whyNoDevice}', architectures: '' }),
    instructionSets: () => ({ chosen: '${name}', started }),
  };`;

/** A copy of the loader in a package of its own, without a build; each name is installed as a platform package. */
async function install(t: ExecutionContext, packages: Record<string, { version?: string; main?: string }>) {
  const root = await temporaryDir(t);
  await mkdir(path.join(root, 'lib'));
  await cp('lib/native', path.join(root, 'lib/native'), { recursive: true });
  await cp('lib/errors.ts', path.join(root, 'lib/errors.ts'));
  await writeFile(
    path.join(root, 'package.json'),
    JSON.stringify({ name: 'moduleformer', version: VERSION, type: 'module' }),
  );
  const modules = path.join(root, 'node_modules');
  await mkdir(path.join(modules, '@moduleformer'), { recursive: true });
  for (const name of ['bindings', 'file-uri-to-path', 'tsx', 'esbuild', '@esbuild', 'get-tsconfig'])
    await symlink(path.resolve('node_modules', name), path.join(modules, name)).catch(() => undefined);
  for (const [name, { version = VERSION, main = addon(name) }] of Object.entries(packages)) {
    const folder = path.join(modules, '@moduleformer', name);
    await mkdir(folder);
    await writeFile(path.join(folder, 'package.json'), JSON.stringify({ name, version, main: 'addon.js' }));
    await writeFile(path.join(folder, 'addon.js'), main);
  }
  return root;
}

function load(root: string, env: NodeJS.ProcessEnv = {}): { status: number | null; output: string } {
  const script =
    "const { native, addonSource } = await import('./lib/native/load.ts').catch((e) => { console.log(e.name + ': ' + e.message); process.exit(3); });" +
    'console.log(JSON.stringify({ ...native.instructionSets(), ...addonSource }));';
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import=tsx', '--input-type=module', '-e', script],
    { cwd: root, encoding: 'utf8', env: { ...process.env, MODULEFORMER_ADDON: '', ...env } },
  );
  return { status, output: stdout + stderr };
}

const cpu = platformName();

test('this very process runs a local build, and says so', (t) => {
  t.regex(addonSource.what, process.env['MODULEFORMER_ADDON'] ? /^MODULEFORMER_ADDON=/ : /^local build in /);
});

test('names of platforms: glibc has none, musl is told apart', (t) => {
  t.true(cpu.startsWith(`${process.platform}-${process.arch}`));
  t.is(cpu.endsWith('-musl'), isMusl());
});

test('a prebuilt package is loaded, and the loader tells what it passed over', async (t) => {
  const { status, output } = load(await install(t, { [cpu]: {} }));
  t.is(status, 0, output);
  const { chosen, what, passedOver } = JSON.parse(output) as typeof addonSource & { chosen: string };
  t.is(chosen, cpu);
  t.is(what, `@moduleformer/${cpu}`);
  t.is(passedOver[0]?.reason, 'there is none');
  if (cudaPackage())
    t.deepEqual(passedOver[1], { what: `@moduleformer/${cpu}-cuda`, reason: 'not installed' });
  t.false('unusedCudaPackage' in (JSON.parse(output) as object), 'nobody asked for CUDA');
});

const onCudaPlatforms = cudaPackage() === undefined ? test.skip : test;
type Loaded = typeof addonSource & { chosen: string; started: string };

onCudaPlatforms('the CUDA package is taken where a device answers', async (t) => {
  const { output } = load(await install(t, { [cpu]: {}, [`${cpu}-cuda`]: { main: addon('cuda', '') } }));
  const { chosen, what, unusedCudaPackage } = JSON.parse(output) as Loaded;
  t.is(chosen, 'cuda');
  t.is(what, `@moduleformer/${cpu}-cuda`);
  t.is(unusedCudaPackage, undefined);
});

onCudaPlatforms(
  'where none answers, the CPU package is, and the reason is kept for logs and errors',
  async (t) => {
    const root = await install(t, {
      [cpu]: {},
      [`${cpu}-cuda`]: { main: addon('cuda', 'no CUDA driver was found') },
    });
    const { chosen, started, passedOver, unusedCudaPackage } = JSON.parse(load(root).output) as Loaded;
    t.is(chosen, cpu);
    t.deepEqual(passedOver[1], {
      what: `@moduleformer/${cpu}-cuda`,
      reason: 'installed, but no CUDA driver was found',
    });
    t.is(unusedCudaPackage, `@moduleformer/${cpu}-cuda: installed, but no CUDA driver was found`);
    t.is(unusedCudaPackage, started, 'errors about the device say it too');
  },
);

onCudaPlatforms('a CUDA package of another version, broken or shadowed is told as well', async (t) => {
  const unused = (root: string, env = {}): string | undefined =>
    (JSON.parse(load(root, env).output) as Loaded).unusedCudaPackage;
  const cuda = `@moduleformer/${cpu}-cuda`;
  t.is(
    unused(await install(t, { [cpu]: {}, [`${cpu}-cuda`]: { version: '1.2.2' } })),
    `${cuda}: version 1.2.2 is installed, expected 1.2.3`,
  );
  const root = await install(t, {
    [cpu]: {},
    [`${cpu}-cuda`]: { main: "throw new Error('libcuda.so.1: file too short')" },
  });
  t.is(unused(root), `${cuda}: libcuda.so.1: file too short`);
  const file = path.join(root, 'mine.cjs');
  await writeFile(file, addon('mine'));
  t.is(
    unused(root, { MODULEFORMER_ADDON: file }),
    `${cuda}: installed, but not tried: MODULEFORMER_ADDON=${file} comes first`,
  );
});

test('where nothing loads, one error lists every attempt, each reason and the remedy', async (t) => {
  const broken = await install(t, {
    [cpu]: { main: "throw new Error('version GLIBC_2.99 not found\\nmore')" },
  });
  const { status, output } = load(broken);
  t.is(status, 3);
  t.true(output.startsWith('ModuleFormerError: the native addon of moduleformer could not be loaded ('));
  t.true(output.includes(`  - local build in ${path.join(broken, 'build')}: there is none\n`), output);
  t.is(output.includes(`  - @moduleformer/${cpu}-cuda: not installed\n`), cudaPackage() !== undefined);
  t.true(output.includes(`  - @moduleformer/${cpu}: version GLIBC_2.99 not found\n`), output);
  t.true(output.includes('npx moduleformer build'), output);

  const outdated = load(await install(t, { [cpu]: { version: '1.2.2' } }));
  t.true(outdated.output.includes(`@moduleformer/${cpu}: version 1.2.2 is installed, expected 1.2.3\n`));
});

test('an explicit path is the only one that is tried', async (t) => {
  const root = await install(t, { [cpu]: {} });
  const file = path.join(root, 'mine.cjs');
  await writeFile(file, addon('mine'));
  t.true(load(root, { MODULEFORMER_ADDON: file }).output.includes('"chosen":"mine"'));
  const { status, output } = load(root, { MODULEFORMER_ADDON: path.join(root, 'none.node') });
  t.is(status, 3);
  t.true(output.includes(`MODULEFORMER_ADDON=${path.join(root, 'none.node')}: Cannot find module`), output);
  t.false(output.includes(`@moduleformer/${cpu}:`), output);
});

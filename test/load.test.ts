import { spawnSync } from 'node:child_process';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { addonSource } from '../lib/native/load.js';
import { isMusl, platformName, whyNoGpu } from '../lib/native/platform.js';
import { temporaryDir } from './support/data.js';

const VERSION = '1.2.3';
/** A stand-in for the addon, which says who it is. */
const addon = (name: string): string =>
  `module.exports = { setErrorClasses() {}, instructionSets: () => ({ chosen: '${name}' }) };`;

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
    'console.log(JSON.stringify({ chosen: native.instructionSets().chosen, ...addonSource }));';
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
  t.deepEqual(
    passedOver.map(({ reason }) => reason),
    ['there is none', 'not installed'],
  );
});

test('the CUDA package is taken where a driver is loaded, and its absence is told where not', async (t) => {
  const { output } = load(await install(t, { [cpu]: {}, [`${cpu}-cuda`]: {} }));
  const { chosen, passedOver } = JSON.parse(output) as typeof addonSource & { chosen: string };
  const reason = whyNoGpu();
  if (reason === undefined) {
    t.is(chosen, `${cpu}-cuda`);
  } else {
    t.is(chosen, cpu);
    t.deepEqual(passedOver[1], {
      what: `@moduleformer/${cpu}-cuda`,
      reason: `installed, but ${reason}`,
    });
  }
});

test('where nothing loads, one error lists every attempt, each reason and the remedy', async (t) => {
  const broken = await install(t, {
    [cpu]: { main: "throw new Error('version GLIBC_2.99 not found\\nmore')" },
  });
  const { status, output } = load(broken);
  t.is(status, 3);
  t.true(output.startsWith('ModuleFormerError: the native addon of moduleformer could not be loaded ('));
  t.true(output.includes(`  - local build in ${path.join(broken, 'build')}: there is none\n`), output);
  t.true(output.includes(`  - @moduleformer/${cpu}-cuda: not installed\n`), output);
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

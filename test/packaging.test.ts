import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { findNvcc } from '../lib/cli/nvcc.js';
import { cudaPackage } from '../lib/native/platform.js';
import { findRaised, floorsIn } from '../scripts/support/floors.js';
import {
  MOST_BYTES,
  pack,
  platformPackages,
  publishedManifest,
  readManifest,
} from '../scripts/support/package.js';
import { temporaryDir } from './support/data.js';

const main = readManifest('package.json');

test('the newest version of each library is found, in numbers and not in letters', (t) => {
  const symbols = [
    '0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.2.5) memset',
    '0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.14) memcpy',
    '0000000000000000      DF *UND*\t0000000000000000 (GLIBCXX_3.4.9) _ZSt4cerr',
    '0000000000000000      DF *UND*\t0000000000000000 (GLIBCXX_3.4.22) _ZNSt6threadD1Ev',
    '000000000001d320 g    DF .text\t000000000000006e  Base        napi_register_module_v1',
  ].join('\n');
  t.deepEqual(floorsIn(symbols), { glibc: '2.14', glibcxx: '3.4.22' });
});

test('a floor that rose is told; one that fell or was never recorded is not', (t) => {
  const recorded = { glibc: '2.27', glibcxx: '3.4.22' };
  t.deepEqual(findRaised(recorded, { glibc: '2.34', glibcxx: '3.4.22' }), [
    'it needs glibc 2.34, the last one needed 2.27',
  ]);
  t.deepEqual(findRaised(recorded, { glibc: '2.4', glibcxx: '3.4.9' }), []);
  t.deepEqual(findRaised({}, { glibc: '2.34', glibcxx: '3.4.30' }), []);
});

test('what is published depends on the prebuilt packages of its own version, and needs no script', (t) => {
  const published = publishedManifest(main, ['linux-x64']);
  t.is(published.optionalDependencies?.['@moduleformer/linux-x64'], main.version);
  t.truthy(published.optionalDependencies?.['tokenizers']);
  for (const field of ['scripts', 'devDependencies', 'ava']) t.false(field in published, field);
  t.is(published['gypfile'], false);
  t.deepEqual(published['exports'], main['exports']);
});

test('every platform is described, in the version of the main package, and is built for a release', (t) => {
  const workflow = readFileSync('.github/workflows/release.yml', 'utf8');
  t.true(platformPackages().includes('linux-x64'));
  for (const name of readdirSync('npm')) {
    const manifest = readManifest(join('npm', name, 'package.json'));
    t.is(manifest.name, `@moduleformer/${name}`);
    t.is(manifest.version, main.version);
    const [os, cpu] = name.split('-');
    t.deepEqual(manifest['os'], [os]);
    t.deepEqual(manifest['cpu'], [cpu]);
    t.deepEqual(manifest['libc'], os === 'linux' ? ['glibc'] : undefined);
    t.true(existsSync(join('npm', name, 'README.md')));
    t.true(workflow.includes(`package: ${name}\n`), `${name} is in release.yml`);
  }
});

test('the platforms are those that were promised; that for GPUs is installed by name', (t) => {
  t.deepEqual(platformPackages().sort(), ['darwin-arm64', 'linux-arm64', 'linux-x64', 'win32-x64']);
  const published = publishedManifest(main, platformPackages());
  t.false('@moduleformer/linux-x64-cuda' in (published.optionalDependencies ?? {}));
  t.true(existsSync('npm/linux-x64-cuda/package.json'));
  if (process.platform === 'linux' && process.arch === 'x64' && cudaPackage())
    t.is(cudaPackage(), '@moduleformer/linux-x64-cuda');
});

test('a package that is larger than it may be is not kept', async (t) => {
  const [folder, packages] = [await temporaryDir(t), await temporaryDir(t)];
  mkdirSync(join(folder, 'package'));
  writeFileSync(join(folder, 'package', 'package.json'), JSON.stringify({ name: 'heavy', version: '1.0.0' }));
  pack(join(folder, 'package'), packages, 10_000);
  t.deepEqual(readdirSync(packages), ['heavy-1.0.0.tgz']);
  t.throws(() => pack(join(folder, 'package'), packages, 10), { message: /\d+ bytes, expected at most 10$/ });
  t.deepEqual(readdirSync(packages), []);
});

test('the largest sizes that the guide states are those that are enforced', (t) => {
  const guide = readFileSync('docs/packages.md', 'utf8');
  for (const [kind, bytes] of Object.entries(MOST_BYTES)) t.true(guide.includes(`${bytes / 1e6} MB`), kind);
});

test('nvcc is found where CUDACXX says, and its absence is told', (t) => {
  t.is(findNvcc({ CUDACXX: '/opt/nvcc' }), '/opt/nvcc');
  if (!existsSync('/usr/local/cuda/bin/nvcc'))
    t.throws(() => findNvcc({ PATH: '' }), { message: /nvcc was not found/ });
});

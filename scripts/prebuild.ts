// `npm run prebuild`: builds the addon for this platform with every instruction set, strips it, stamps what it needs into
// npm/<platform>/package.json, and packs that package and the main one into build-prebuild/packages. A binary that needs
// a newer C or C++ library than the last one did is refused: it would no longer load on machines where that one does.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { platformName } from '../lib/native/platform.js';
import { packMain, readManifest, type Manifest } from './support/package.js';
import { findRaised, floorsOf, type Floors } from './support/floors.js';

const OUT = 'build-prebuild';
const PACKAGES = join(OUT, 'packages');

interface PlatformManifest extends Manifest {
  moduleformer: Floors & { instructionSets?: string[] };
}

function run(command: string, args: string[], cwd = '.'): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
}

function build(target: string): void {
  // Configured anew each time: an older build folder may be for fewer instruction sets.
  const options = ['--out', OUT, '--log-level', 'warn', '--CDMF_ISAS='];
  run('npx', ['cmake-js', 'configure', ...options]);
  run('npx', ['cmake-js', 'build', ...options]);
  const strip = process.platform === 'darwin' ? ['-x'] : ['--strip-unneeded'];
  run('strip', [...strip, '-o', target, join(OUT, 'Release', 'moduleformer.node')]);
}

function instructionSetsOf(file: string): string[] {
  const script = `process.stdout.write(JSON.stringify(require(${JSON.stringify(resolve(file))}).instructionSets().built))`;
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' })) as string[];
}

const folder = join('npm', platformName());
const manifestFile = join(folder, 'package.json');
if (!existsSync(manifestFile)) throw new Error(`no package is described for this platform (${manifestFile})`);
const binary = join(folder, 'moduleformer.node');
build(binary);

const manifest = readManifest(manifestFile) as PlatformManifest;
const floors = process.platform === 'linux' ? floorsOf(binary) : {};
const raised = findRaised(manifest.moduleformer, floors);
if (raised.length > 0) {
  rmSync(binary);
  throw new Error(
    `${binary} is not packed: ${raised.join('; ')}. Either avoid what is newer, or lower the claim in ${manifestFile}`,
  );
}
manifest.version = readManifest('package.json').version;
manifest.moduleformer = { instructionSets: instructionSetsOf(binary), ...floors };
writeFileSync(manifestFile, `${JSON.stringify(manifest, null, 2)}\n`);

rmSync(PACKAGES, { recursive: true, force: true });
mkdirSync(PACKAGES, { recursive: true });
run('npm', ['pack', '--silent', '--pack-destination', resolve(PACKAGES)], folder);
packMain(join(OUT, 'moduleformer'), PACKAGES);
console.log(
  `${binary}: ${statSync(binary).size} bytes, ${JSON.stringify(manifest.moduleformer)}; packed into ${PACKAGES}`,
);

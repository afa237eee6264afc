// `npm run prebuild`: builds the addon for this platform with every instruction set, strips it, and packs it with what it
// needs stamped into its package.json; then packs the main package. All of it lies in build-prebuild/packages.
//   --cuda                    also the package with CUDA kernels; needs nvcc
//   --cuda-architectures A,B  for these alone, for a quick try (as CMake spells them: 80-real,90a-real)
// A binary that needs a newer C or C++ library than npm/<platform>/package.json records is refused: it would not load on
// machines where the last one did. So is a package larger than it may be.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { findNvcc } from '../lib/cli/nvcc.js';
import { platformName } from '../lib/native/platform.js';
import { findRaised, floorsOf, type Floors } from './support/floors.js';
import {
  MOST_BYTES,
  pack,
  packMain,
  readManifest,
  run,
  tool,
  writeManifest,
  type Manifest,
} from './support/package.js';

const OUT = 'build-prebuild';
const PACKAGES = join(OUT, 'packages');
const RELEASED_ARCHITECTURES = '80-real,90a-real,100a-real,120';

const { values: flags } = parseArgs({
  options: {
    cuda: { type: 'boolean', default: false },
    'cuda-architectures': { type: 'string', default: RELEASED_ARCHITECTURES },
  },
});

interface PlatformManifest extends Manifest {
  moduleformer: Floors & { instructionSets?: string[]; cudaArchitectures?: string[] };
}

/** CPU and CUDA packages are built in one folder: what they have in common is compiled once. */
function build(target: string, cuda: string[]): void {
  // Configured anew each time: an older build folder may be for fewer instruction sets.
  const windows = process.platform === 'win32' ? ['--toolset', 'ClangCL'] : [];
  const options = ['--out', OUT, '--log-level', 'warn', '--CDMF_ISAS=', ...windows, ...cuda];
  run([...tool('cmake-js'), 'configure', ...options]);
  run([...tool('cmake-js'), 'build', ...options]);
  const built = join(OUT, 'Release', 'moduleformer.node');
  if (process.platform === 'win32') cpSync(built, target);
  else run(['strip', process.platform === 'darwin' ? '-x' : '--strip-unneeded', '-o', target, built]);
}

/** What the binary itself says that it holds. */
function contentsOf(file: string): PlatformManifest['moduleformer'] {
  const script =
    `const addon = require(${JSON.stringify(resolve(file))});` +
    'process.stdout.write(JSON.stringify([addon.instructionSets().built, addon.cudaDevices().architectures]))';
  const output = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  const [instructionSets, architectures] = JSON.parse(output) as [string[], string];
  return {
    instructionSets,
    ...(architectures === '' ? {} : { cudaArchitectures: architectures.split(',') }),
  };
}

function packPlatform(name: string, cuda: string[], most: number): void {
  const described = join('npm', name);
  if (!existsSync(described)) throw new Error(`no package is described for this platform (${described})`);
  const folder = join(OUT, name);
  rmSync(folder, { recursive: true, force: true });
  cpSync(described, folder, { recursive: true });
  cpSync('LICENSE', join(folder, 'LICENSE'));
  const manifest = readManifest(join(folder, 'package.json')) as PlatformManifest;
  const binary = join(folder, 'moduleformer.node');
  build(binary, cuda);
  const floors = process.platform === 'linux' ? floorsOf(binary) : {};
  const raised = findRaised(manifest.moduleformer, floors);
  if (raised.length > 0) {
    throw new Error(
      `${binary} is not packed: ${raised.join('; ')}. Either avoid what is newer, or lower the claim in ${described}`,
    );
  }
  manifest.version = readManifest('package.json').version;
  manifest.moduleformer = { ...contentsOf(binary), ...floors };
  writeManifest(folder, manifest);
  console.log(`${name}: ${JSON.stringify(manifest.moduleformer)}`);
  pack(folder, PACKAGES, most);
}

rmSync(PACKAGES, { recursive: true, force: true });
mkdirSync(PACKAGES, { recursive: true });
packPlatform(platformName(), ['--CDMF_CUDA=OFF'], MOST_BYTES.cpu);
packMain(join(OUT, 'moduleformer'), PACKAGES);
if (flags.cuda) {
  const architectures = flags['cuda-architectures'].replaceAll(',', ';');
  packPlatform(
    `${platformName()}-cuda`,
    [
      '--CDMF_CUDA=ON',
      `--CDCMAKE_CUDA_COMPILER=${findNvcc()}`,
      `--CDCMAKE_CUDA_ARCHITECTURES=${architectures}`,
    ],
    MOST_BYTES.cuda,
  );
}

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { ModuleFormerError } from '../errors.js';
import { packageRoot } from '../native/package-root.js';
import type { BuildFlags } from './build-command.js';
import { findNvcc } from './nvcc.js';

/**
 * Builds the addon into build/Release of this package, where the loader looks first.
 * @throws ModuleFormerError when CMake or a compiler is missing or fails; they have said why by then.
 */
export function buildAddon({ jobs = availableParallelism(), cuda = false }: BuildFlags): void {
  if (process.platform === 'win32')
    throw new ModuleFormerError('build: Windows is not supported; inside WSL this works as on Linux');
  const root = packageRoot();
  const out = join(root, 'build');
  const headers = dirname(createRequire(import.meta.url).resolve('node-api-headers/package.json'));
  cmake([
    ...['-S', root, '-B', out, '-DCMAKE_BUILD_TYPE=Release'],
    `-DCMAKE_JS_INC=${join(headers, 'include')}`,
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(out, 'Release')}`,
    // Node's own functions are found when the addon is loaded.
    ...cudaOptions(cuda),
    ...(process.platform === 'darwin' ? ['-DCMAKE_SHARED_LINKER_FLAGS=-undefined dynamic_lookup'] : []),
  ]);
  cmake(['--build', out, '--config', 'Release', '--parallel', String(jobs)]);
  console.log(`built ${join(out, 'Release', 'moduleformer.node')}`);
}

/** The options of CMakeLists.txt for a CUDA build: of all architectures, or of those that are named. */
function cudaOptions(cuda: boolean | string): string[] {
  if (cuda === false) return ['-DMF_CUDA=OFF'];
  const architectures = typeof cuda === 'string' ? [`-DCMAKE_CUDA_ARCHITECTURES=${cuda.replaceAll(',', ';')}`] : [];
  return ['-DMF_CUDA=ON', `-DCMAKE_CUDA_COMPILER=${findNvcc()}`, ...architectures];
}

function cmake(args: string[]): void {
  const { error, status } = spawnSync('cmake', args, { stdio: 'inherit' });
  if (error) throw new ModuleFormerError(`build: cmake cannot be run (${error.message}); is it installed?`);
  if (status !== 0) throw new ModuleFormerError(`build: cmake ${args[0]} ended with code ${status}`);
}

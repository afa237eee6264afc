import type { Command } from 'commander';
import { integer } from './command.js';

export interface BuildFlags {
  jobs?: number;
  cuda?: boolean | string;
}

export function addBuildCommand(program: Command): void {
  program
    .command('build')
    .description('Build the native addon from source, where no prebuilt one fits. Needs CMake and a C++20 compiler.')
    .option('--jobs <n>', 'compilers that run at once (default: one per core)', integer(1))
    .option(
      '--cuda [architectures]',
      'CUDA kernels as well; needs nvcc (default: 80-real,90a-real,100a-real,120, which takes long)',
    )
    .addHelpText(
      'after',
      `
Examples:
  $ npx moduleformer build
  $ CXX=clang++ npx moduleformer build --jobs 2
  $ npx moduleformer build --cuda 90a-real`,
    )
    .action(async (flags: BuildFlags) => {
      const { buildAddon } = await import('./build.js');
      buildAddon(flags);
    });
}

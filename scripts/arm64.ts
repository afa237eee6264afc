// npm run test:arm64: compiles everything but the addon's own files for 64-bit ARM (NEON), warnings being errors, with
// a cross compiler (Debian: g++-aarch64-linux-gnu), and runs the C++ tests, kernels against plain loops among them,
// under qemu-aarch64 (qemu-user). Exits with 1 where one of the two is missing.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const COMPILER = 'aarch64-linux-gnu-g++';
const EMULATOR = 'qemu-aarch64';
const LIBRARIES = '/usr/aarch64-linux-gnu';
const OUT = 'build-arm64';

function run(command: string, args: string[]): void {
  const { status } = spawnSync(command, args, { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

for (const [tool, name] of [
  [COMPILER, 'g++-aarch64-linux-gnu'],
  [EMULATOR, 'qemu-user'],
] as const) {
  if (spawnSync(tool, ['--version']).status === 0) continue;
  console.error(`arm64: ${tool} is missing: apt-get install ${name}`);
  process.exit(1);
}
run('cmake', [
  '-S',
  '.',
  '-B',
  OUT,
  '-DCMAKE_BUILD_TYPE=Release',
  '-DCMAKE_SYSTEM_NAME=Linux',
  '-DCMAKE_SYSTEM_PROCESSOR=aarch64',
  `-DCMAKE_CXX_COMPILER=${COMPILER}`,
  '-DMF_NATIVE_TESTS=ON',
  '-DMF_WERROR=ON',
]);
run('cmake', ['--build', OUT, '--parallel', process.env['CMAKE_BUILD_PARALLEL_LEVEL'] ?? '2']);
run(EMULATOR, ['-L', LIBRARIES, join(OUT, 'native_tests')]);

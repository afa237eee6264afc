import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';

// .ci/run in an empty directory, with an `npm` that plays a part: what matters here is how the steps are added up.
async function runCi(
  npm: string,
): Promise<{ status: number | null; output: string; lastLine: string | undefined }> {
  const root = await mkdtemp(path.join(os.tmpdir(), 'ci-'));
  await mkdir(path.join(root, '.ci'));
  await mkdir(path.join(root, 'bin'));
  await writeFile(path.join(root, 'CMakeLists.txt'), '');
  await writeFile(path.join(root, '.ci/run'), await readFile('.ci/run'));
  for (const tool of [
    'npm',
    'apt-get',
    'g++',
    'make',
    'cmake',
    'git',
    'python3',
    'clang-format',
    'clang-tidy-19',
    'aarch64-linux-gnu-g++',
    'qemu-aarch64',
    'nvcc',
    'nvcc',
  ]) {
    const file = path.join(root, 'bin', tool);
    await writeFile(file, `#!/bin/bash\n${tool === 'npm' ? npm : 'exit 0'}\n`);
    await chmod(file, 0o755);
  }
  const { status, stdout } = spawnSync('bash', [path.join(root, '.ci/run')], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${path.join(root, 'bin')}:${process.env.PATH}` },
  });
  return { status, output: stdout, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

test('all steps pass: the counts of the tests are the total', async (t) => {
  const { status, lastLine, output } = await runCi(
    '[[ "$*" == test ]] && echo "12 passed, 0 failed, 2 skipped"; exit 0',
  );
  t.is(lastLine, '12 passed, 0 failed, 2 skipped');
  t.is(status, 0);
  t.true(output.includes('ok  tests (12 passed, 0 failed, 2 skipped)'));
});

test('a step that fails counts once, and the steps after it still run', async (t) => {
  const { status, lastLine, output } = await runCi(
    'case "$*" in test) echo "12 passed, 3 failed"; exit 1;; "run lint") exit 2;; esac',
  );
  t.is(lastLine, '12 passed, 4 failed');
  t.is(status, 1);
  t.true(output.includes('FAILED  lint\n'));
  t.true(output.includes('FAILED  tests (12 passed, 3 failed)\n'));
  t.true(output.includes('ok  types\n'));
});

test('a CUDA kernel that spills fails its step, tests of the emulated kernels count', async (t) => {
  const { lastLine, output } = await runCi(
    'case "$*" in "run test:cuda-emulated"*) echo "7 passed, 0 failed";; "run cuda:report"*) exit 1;; esac',
  );
  t.is(lastLine, '7 passed, 1 failed');
  t.true(output.includes('ok  CUDA kernels, emulated (7 passed, 0 failed)\n'));
  t.true(output.includes('FAILED  CUDA registers and spills\n'));
});

test('tests that crash without totals, or lie about them, are a failure', async (t) => {
  const crash = await runCi(
    '[[ "$*" == test ]] && { echo "12 passed, 0 failed"; echo aborted; exit 134; }; exit 0',
  );
  t.is(crash.lastLine, '0 passed, 1 failed');
  t.is(crash.status, 1);
  const lie = await runCi('[[ "$*" == test ]] && { echo "12 passed, 0 failed"; exit 1; }; exit 0');
  t.is(lie.lastLine, '12 passed, 1 failed');
  t.is(lie.status, 1);
  const nothing = await runCi('exit 0');
  t.is(nothing.lastLine, '0 passed, 1 failed');
  t.is(nothing.status, 1);
});

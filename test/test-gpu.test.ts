// `npm run test:gpu` where no GPU answers. What it tests on one is tested on the emulator too.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import test from 'ava';
import { describeBackend } from '../lib/system.js';

function testGpu(addon: string): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, MODULEFORMER_ADDON: addon };
  return spawnSync('npx', ['tsx', 'scripts/test-gpu.ts'], { encoding: 'utf8', env });
}

test('without a GPU it says why, in one line, and ends with 3', (t) => {
  const { cuda } = describeBackend();
  const emulated = cuda.names.includes('emulated');
  if (cuda.names.length > 0 && !emulated) return t.pass('there is a GPU');
  const addon = process.env['MODULEFORMER_ADDON'] ?? 'build/Release/moduleformer.node';
  const { status, stdout, stderr } = testGpu(resolve(addon));
  t.is(status, 3, stderr);
  t.is(stdout, '');
  t.regex(stderr, /^test:gpu: nothing was tested: .*\n$/);
  t.true(stderr.includes(emulated ? 'the device is emulated' : cuda.reason), stderr);
});

test('without a build it ends with 2 and names the command', (t) => {
  const { status, stderr } = testGpu('/nowhere/moduleformer.node');
  t.is(status, 2);
  t.regex(stderr, /^test:gpu: nothing was tested: there is no \/nowhere\/.*npm run build:cuda\n$/);
});

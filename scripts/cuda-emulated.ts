// `npm run test:cuda-emulated [-- op]`: builds the CUDA kernels against the emulator; runs its own tests, the op specs under
// three orders of threads and the golden cases on the device 'cuda'. With an op, only its specs.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const out = 'build-cuda-emulated';
const op = process.argv[2];

function run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): void {
  const { status } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}

const options = [
  '--CDMF_CUDA=EMULATED',
  '--CDMF_NATIVE_TESTS=ON',
  '--CDMF_ISAS=generic',
  '--log-level',
  'warn',
];
run('npx', ['cmake-js', 'build', '--out', out, ...options]);
run(join(out, 'native_tests'), []);
const device = {
  MODULEFORMER_ADDON: join(process.cwd(), out, 'Release', 'moduleformer.node'),
  MODULEFORMER_TEST_DEVICE: 'cuda',
};
const schedules = [
  { MODULEFORMER_EMULATION_ORDER: 'forward', MODULEFORMER_EMULATION_COPIES: 'late' },
  { MODULEFORMER_EMULATION_ORDER: 'reverse', MODULEFORMER_EMULATION_COPIES: 'early' },
  { MODULEFORMER_EMULATION_ORDER: 'random:1', MODULEFORMER_EMULATION_COPIES: 'late' },
];
const tests = ['tsx', 'scripts/test.ts'];
for (const schedule of schedules) {
  run('npx', [...tests, 'test/ops.test.ts', ...(op ? ['-m', `${op}*`] : [])], { ...device, ...schedule });
}
if (!op) run('npx', [...tests, 'test/golden.test.ts'], device);

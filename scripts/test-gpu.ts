// `npm run test:gpu`: op specs, golden cases, training and generation on this machine's GPU, with the addon of
// `npm run build:cuda` (MODULEFORMER_ADDON names another). Exits with 3, having tested nothing, where no GPU answers.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const NO_GPU = 3;
const addon =
  process.env['MODULEFORMER_ADDON'] ?? join(process.cwd(), 'build-cuda', 'Release', 'moduleformer.node');
const tests = [
  'test/ops.test.ts',
  'test/golden.test.ts',
  'test/device-training.test.ts',
  'test/device-graph.test.ts',
  'test/program.test.ts',
  'test/decoder.test.ts',
];

if (!existsSync(addon)) {
  console.error(`test:gpu: nothing was tested: there is no ${addon}, expected a build by npm run build:cuda`);
  process.exit(2);
}
process.env['MODULEFORMER_ADDON'] = addon;
process.env['MODULEFORMER_TEST_DEVICE'] = 'cuda';
const { describeBackend } = await import('../lib/system.js');
const { cuda, summary } = describeBackend('cuda');
const [name] = cuda.names;
if (name === undefined || name === 'emulated') {
  console.error(`test:gpu: nothing was tested: ${name ? 'the device is emulated, not a GPU' : summary}`);
  process.exit(NO_GPU);
}
console.log(summary);
const args = ['tsx', 'scripts/test.ts', '--timeout=10m', ...process.argv.slice(2), ...tests];
process.exitCode = spawnSync('npx', args, { stdio: 'inherit' }).status ?? 1;

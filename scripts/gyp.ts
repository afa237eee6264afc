// `npm run test:gyp`: builds the addon with node-gyp and loads it. node-gyp writes to build/, where the build of CMake
// is: so in a copy of the tracked files. Node's own headers are used where they are installed, without a download.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const copy = mkdtempSync(join(tmpdir(), 'moduleformer-gyp-'));
try {
  const tracked = execFileSync('git', [
    'ls-files',
    '-z',
    'native',
    'lib',
    'scripts',
    'binding.gyp',
    'package.json',
  ]);
  for (const file of tracked.toString().split('\0').filter(Boolean)) cpSync(file, join(copy, file));
  symlinkSync(join(process.cwd(), 'node_modules'), join(copy, 'node_modules'));
  const prefix = dirname(dirname(process.execPath));
  const headers = existsSync(join(prefix, 'include/node/node_api.h')) ? { npm_config_nodedir: prefix } : {};
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    ...headers,
    npm_config_jobs: String(availableParallelism()),
  };
  delete env['MODULEFORMER_ADDON'];
  execFileSync('npm', ['run', 'build:gyp', '--', '--silent'], { cwd: copy, env, stdio: 'inherit' });
  const load = "const { instructionSets } = await import('./lib/system.ts'); console.log(instructionSets());";
  execFileSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', load], {
    cwd: copy,
    env,
    stdio: 'inherit',
  });
} finally {
  rmSync(copy, { recursive: true });
}

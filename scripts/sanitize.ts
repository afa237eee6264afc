// Builds with sanitizers and runs the tests that make sense under them:
//   tsx scripts/sanitize.ts address   the addon with address + undefined, and the op tests
//   tsx scripts/sanitize.ts thread    the C++ tests of stream and pool
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sanitizerEnvironment } from './support/sanitizers.js';

function run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): void {
  const { status } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}

/** The tests of ops and tensors: those that load the addon and no child process. */
function opTests(): string[] {
  const names =
    /^(ops|op-misuse|random|tensor|tokens|engine|router|sample|attention|grouped_gemm)\b.*\.test\.ts$/;
  return readdirSync('test').flatMap((name) => (names.test(name) ? [join('test', name)] : []));
}

/** The widest instruction set of this machine: its kernels are those that read and write the most at once. */
function widestIsa(): string {
  const flags = process.arch === 'x64' ? readFileSync('/proc/cpuinfo', 'utf8') : '';
  if (/\bavx512vl\b/.test(flags)) return 'avx512';
  return /\bavx2\b/.test(flags) ? 'avx2' : 'generic';
}

function address(): void {
  const out = 'build-asan';
  const options = [
    '--CDMF_SANITIZE=address',
    `--CDMF_ISAS=${widestIsa()}`,
    '--CDMF_WERROR=ON',
    '--log-level',
    'warn',
  ];
  run('npx', ['cmake-js', 'build', '--out', out, ...options]);
  run('npx', ['tsx', 'scripts/test.ts', '--timeout=15m', ...opTests()], {
    MODULEFORMER_ADDON: join(process.cwd(), out, 'Release', 'moduleformer.node'),
    ...sanitizerEnvironment(),
  });
}

function thread(): void {
  const out = 'build-tsan';
  run('cmake', [
    '-S',
    '.',
    '-B',
    out,
    '-DMF_SANITIZE=thread',
    '-DMF_NATIVE_TESTS=ON',
    '-DMF_ISAS=generic',
    '-DMF_WERROR=ON',
  ]);
  run('cmake', ['--build', out, '--parallel', '2']);
  run(join(out, 'native_tests'), [], { TSAN_OPTIONS: 'halt_on_error=1' });
}

const kinds = { address, thread };
const kind = process.argv[2] ?? '';
if (kind !== 'address' && kind !== 'thread') {
  console.error(`sanitize: '${kind}' is no sanitizer, expected address or thread`);
  process.exit(2);
}
kinds[kind]();

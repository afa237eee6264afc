import { execFileSync } from 'node:child_process';

function library(name: string): string {
  return execFileSync(process.env['CXX'] ?? 'g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
}

/** What Node needs to load an addon that was built with the address and undefined-behaviour sanitizers. */
export function sanitizerEnvironment(): NodeJS.ProcessEnv {
  return {
    LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
    // Node itself leaks at exit, and V8 reads its stack on purpose.
    ASAN_OPTIONS: 'detect_leaks=0:detect_stack_use_after_return=0:halt_on_error=1',
    UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
  };
}

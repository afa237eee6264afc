import { spawnSync } from 'node:child_process';
import test from 'ava';

import { AvaCounter, formatCounts } from '../scripts/ava-counter.js';

// Recorded from ava 7 on test/fixtures/runner/*.ts.
const MIXED = `
  - [skip] is skipped
  - [todo] is to be written
  ✔ passes
  ✔ passes, with a log and a title that look like TAP: not ok 9 - title
    ℹ not ok 10 - a log line
  ✘ [fail]: fails an assertion
  ✘ [fail]: throws Error thrown in test
  ─

  fails an assertion

  Difference (- actual, + expected):

  ✘ [fail]: a line of the details
  ✔ another

  2 tests failed
  1 test skipped
  1 test todo
`;
const CRASH = `
  ✔ passes
  ✘ test/fixtures/runner/crash.ts exited due to SIGKILL
  ─

  1 test passed
`;
const REJECTION = `
  ✔ passes

  Unhandled rejection in test/fixtures/runner/rejection.ts

  Error: nobody waits for this

  ✘ test/fixtures/runner/rejection.ts exited with a non-zero exit code: 1
  ─

  1 test passed
  1 unhandled rejection
`;
const HANG = `

  ✘ Timed out while running tests

  1 tests were pending in test/fixtures/runner/hang.ts

  ◌ never ends

  ─

  1 test remained pending after a timeout
`;
const EMPTY = `
  ✘ No tests found in test/fixtures/runner/empty.ts
  ─

`;
const NO_MATCH = `
  ✘ Based on your configuration, 2 test files were found, but did not match the filters:

  * test/nothing.ts

`;
const PASSING = `
  ✔ schedule › rises
  ✔ [expected fail] a known failure
  ─

  1 test passed
`;

function count(output: string, exitCode: number | null): string {
  const counter = new AvaCounter();
  counter.add(output);
  return formatCounts(counter.finish(exitCode));
}

test('every kind of output is counted', (t) => {
  t.is(count(PASSING, 0), '2 passed, 0 failed');
  t.is(count(MIXED, 1), '2 passed, 2 failed, 1 skipped');
  t.is(count(CRASH, 1), '1 passed, 1 failed');
  t.is(count(REJECTION, 1), '1 passed, 1 failed');
  t.is(count(HANG, 1), '0 passed, 1 failed');
  t.is(count(EMPTY, 1), '0 passed, 1 failed');
  t.is(count(NO_MATCH, 1), '0 passed, 1 failed');
});

test('a run that fails without saying why, is killed, or holds no test is a failure', (t) => {
  t.is(count(PASSING, 1), '2 passed, 1 failed');
  t.is(count(PASSING, null), '2 passed, 1 failed');
  t.is(count('', 0), '0 passed, 1 failed');
  t.is(count('', 134), '0 passed, 1 failed');
});

test('colours, other glyphs, CRLF and the cuts between chunks make no difference', (t) => {
  t.is(count('  \x1b[32m✔\x1b[39m one\r\n  \x1b[31m✘ [fail]:\x1b[39m two\r\n', 1), '1 passed, 1 failed');
  t.is(count('  √ one\n  × [fail]: two', 1), '1 passed, 1 failed');
  const counter = new AvaCounter();
  for (const character of MIXED) counter.add(character);
  t.is(formatCounts(counter.finish(1)), '2 passed, 2 failed, 1 skipped');
});

function runScript(...args: string[]): { status: number | null; lastLine: string | undefined } {
  const { status, stdout } = spawnSync(process.execPath, ['--import=tsx', 'scripts/test.ts', ...args], {
    encoding: 'utf8',
  });
  return { status, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

test('the script ends with the totals and the exit code that belongs to them', (t) => {
  const fixture = (name: string): string => `test/fixtures/runner/${name}.ts`;
  t.deepEqual(runScript(fixture('mixed'), fixture('crash'), fixture('rejection'), fixture('empty')), {
    status: 1,
    lastLine: '4 passed, 5 failed, 1 skipped',
  });
  t.deepEqual(runScript(fixture('mixed'), '--match=passes'), { status: 0, lastLine: '1 passed, 0 failed' });
  t.deepEqual(runScript(fixture('hang'), '--timeout=3s'), { status: 1, lastLine: '0 passed, 1 failed' });
});

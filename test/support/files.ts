import { execFileSync } from 'node:child_process';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** An empty directory that is removed after the test. */
export async function temporaryDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'moduleformer-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/**
 * A file system of its own, so small that a test can fill it. Only the superuser may mount one: for anybody else the
 * answer is undefined and the test, which then has nothing to look at, says so in the log and passes.
 */
export async function mountTmpfs(t: ExecutionContext, size: string): Promise<string | undefined> {
  const directory = await temporaryDirectory(t);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', directory], { stdio: 'pipe' });
  } catch (error) {
    t.log(`not run: cannot mount a tmpfs here (${(error as Error).message.trim()})`);
    t.pass();
    return undefined;
  }
  // Teardowns run in the reverse order, so this one before the directory is removed.
  t.teardown(() => execFileSync('umount', [directory]));
  return directory;
}

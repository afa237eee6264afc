import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { CheckpointError, DataError } from '../lib/errors.js';
import { lockDirectory } from '../lib/io/lock.js';
import { Trainer } from '../lib/training/trainer.js';
import { temporaryDirectory } from './support/files.js';
import { tinyDataset, tinyRun } from './support/training.js';

/** A directory whose lock was left by somebody else. */
async function lockedBy(t: ExecutionContext, holder: unknown): Promise<{ dir: string; file: string }> {
  const dir = await temporaryDirectory(t);
  const file = join(dir, 'run.lock');
  await writeFile(file, typeof holder === 'string' ? holder : JSON.stringify(holder));
  return { dir, file };
}

test('a directory is held until it is given free', async (t) => {
  const dir = join(await temporaryDirectory(t), 'not/there/yet');
  const unlock = await lockDirectory(dir);
  const error = await t.throwsAsync(lockDirectory(dir), { instanceOf: DataError });
  t.regex(error.message, new RegExp(`process ${process.pid} on ${hostname()} is running there`));
  await unlock();
  t.deepEqual(await readdir(dir), []);
  await (
    await lockDirectory(dir)
  )();
});

test('two runs do not share a directory, and a run leaves no lock', async (t) => {
  const dir = await temporaryDirectory(t);
  const dataset = await tinyDataset(join(dir, 'corpus'));
  const runDir = join(dir, 'run');
  const first = new Trainer(tinyRun(dataset, { runDir })).run();
  await t.throwsAsync(new Trainer(tinyRun(dataset, { runDir })).resume(), {
    instanceOf: DataError,
    message: /is running there/,
  });
  t.is((await first).status, 'finished');
  t.false((await readdir(runDir)).includes('run.lock'));
});

test('what a killed process held is taken over', async (t) => {
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  const { dir, file } = await lockedBy(t, { pid: child.pid, host: hostname(), thread: 'x' });
  const unlock = await lockDirectory(dir);
  t.is((JSON.parse(await readFile(file, 'utf8')) as { pid: number }).pid, process.pid);
  await unlock();
});

test('another thread of this process holds it, an earlier process with the same number does not', async (t) => {
  const { dir, file } = await lockedBy(t, { pid: process.pid, host: hostname(), thread: 'another' });
  await t.throwsAsync(lockDirectory(dir), { instanceOf: DataError, message: /is running there/ });
  const before = new Date(Date.now() - 1000 * process.uptime() - 5000);
  await utimes(file, before, before);
  await (
    await lockDirectory(dir)
  )();
});

test('another host holds it while it renews the lock', async (t) => {
  const { dir, file } = await lockedBy(t, { pid: 7, host: 'elsewhere', thread: 'x' });
  await t.throwsAsync(lockDirectory(dir), { instanceOf: DataError, message: /process 7 on elsewhere/ });
  const longAgo = new Date(Date.now() - 120_000);
  await utimes(file, longAgo, longAgo);
  await (
    await lockDirectory(dir)
  )();
});

test('a lock that is being written counts, a damaged one does not', async (t) => {
  const fresh = await lockedBy(t, '');
  await t.throwsAsync(lockDirectory(fresh.dir), { instanceOf: DataError, message: /another process/ });
  const damaged = await lockedBy(t, '{"pid": 7, "ho');
  await (
    await lockDirectory(damaged.dir)
  )();
});

test('a directory that cannot be made is a CheckpointError', async (t) => {
  const { file } = await lockedBy(t, 'a file');
  await t.throwsAsync(lockDirectory(join(file, 'run')), {
    instanceOf: CheckpointError,
    message: /cannot write .*run/,
  });
});

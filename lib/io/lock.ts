import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { DataError } from '../errors.js';
import { naming } from './atomic.js';

/** Who holds a directory. */
interface Holder {
  pid: number;
  host: string;
  /** Of this module: every worker thread has its own. */
  thread: string;
}

const LOCK_FILE = 'run.lock';
/** A holder renews the file's time; when it is older than the limit, the holder is gone. */
const RENEWED_EVERY_MS = 10_000;
const GONE_AFTER_MS = 60_000;
const self: Holder = { pid: process.pid, host: hostname(), thread: randomUUID() };
/** The lock files of this thread. */
const held = new Set<string>();

/**
 * Holds a directory for this process alone, by a file `run.lock` in it, so that two runs do not write over each other.
 * A lock whose process is gone (killed, or on a host that has been silent for a minute) is taken over.
 *
 * @returns gives the directory free again.
 * @throws {DataError} that names the process which holds it.
 * @throws {CheckpointError} when the directory cannot be made or written to.
 */
export async function lockDirectory(dir: string): Promise<() => Promise<void>> {
  const path = join(resolve(dir), LOCK_FILE);
  if (held.has(path)) throw busy(dir, nameOf(self));
  held.add(path);
  try {
    await naming(dir, () => mkdir(dir, { recursive: true }));
    await naming(path, () => create(path, dir));
  } catch (error) {
    held.delete(path);
    throw error;
  }
  const renewal = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined); // the directory was removed: nobody can meet there
  }, RENEWED_EVERY_MS).unref();
  return async () => {
    clearInterval(renewal);
    held.delete(path);
    await rm(path, { force: true }).catch(() => undefined); // a disk gone bad: the file counts no more
  };
}

async function create(path: string, dir: string): Promise<void> {
  for (;;) {
    try {
      await writeFile(path, JSON.stringify(self), { flag: 'wx' });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = await describeHolder(path);
    if (holder !== null) throw busy(dir, holder);
    await rm(path, { force: true });
  }
}

/** Null when the lock is gone, or its process is. */
async function describeHolder(path: string): Promise<string | null> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > GONE_AFTER_MS) return null;
    const text = await readFile(path, 'utf8');
    if (text === '') return 'another process'; // that is writing the file just now
    const holder = Object(JSON.parse(text)) as Holder;
    if (holder.host === self.host && !isRunning(holder, mtimeMs)) return null;
    return nameOf(holder);
  } catch (error) {
    if (error instanceof SyntaxError) return null; // a crash left a part of it
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function isRunning({ pid, thread }: Holder, mtimeMs: number): boolean {
  if (pid === self.pid) {
    // Another thread's; or left by this one on a bad disk, or by a process of a container before it started anew.
    const start = Date.now() - 1000 * process.uptime();
    return thread !== self.thread && mtimeMs >= start;
  }
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function nameOf({ pid, host }: Holder): string {
  return `process ${pid} on ${host}`;
}

function busy(dir: string, holder: string): DataError {
  return new DataError(`${dir}: ${holder} is running there; end it, or choose another directory`);
}

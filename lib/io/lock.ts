import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DataError } from '../errors.js';
import { naming } from './atomic.js';

/** Who holds a directory. */
interface Holder {
  pid: number;
  host: string;
  /** Of the process: a container that starts anew often gives its number again. */
  process: string;
}

const LOCK_FILE = 'run.lock';
/** A holder renews the file's time; when it is older than the limit, the holder is gone. */
const RENEWED_EVERY_MS = 10_000;
const GONE_AFTER_MS = 60_000;
const self: Holder = { pid: process.pid, host: hostname(), process: randomUUID() };

/**
 * Holds a directory for this process alone, by a file `run.lock` in it, so that two runs do not write over each other.
 * A lock whose process is gone (killed, or on a host that has been silent for a minute) is taken over.
 *
 * @returns gives the directory free again.
 * @throws {DataError} that names the process which holds it.
 * @throws {CheckpointError} when the directory cannot be made or written to.
 */
export async function lockDirectory(dir: string): Promise<() => Promise<void>> {
  const path = join(dir, LOCK_FILE);
  await naming(dir, () => mkdir(dir, { recursive: true }));
  await naming(path, () => create(path, dir));
  const renewal = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined); // the directory was removed: nobody can meet there
  }, RENEWED_EVERY_MS).unref();
  return async () => {
    clearInterval(renewal);
    await rm(path, { force: true });
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
    if (holder !== null) {
      throw new DataError(`${dir}: ${holder} is running there; end it, or choose another directory`);
    }
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
    if (holder.host === self.host && !isRunning(holder)) return null;
    return `process ${holder.pid} on ${holder.host}`;
  } catch (error) {
    if (error instanceof SyntaxError) return null; // a crash left a part of it
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function isRunning({ pid, process: id }: Holder): boolean {
  if (pid === self.pid) return id === self.process;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

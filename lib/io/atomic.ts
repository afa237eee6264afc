import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, isAbsolute } from 'node:path';
import { CheckpointError } from '../errors.js';

/** Appends bytes to the file being written; resolves when the operating system has taken all of them. */
export type Write = (data: Uint8Array) => Promise<void>;

/** What a file shall hold: text (UTF-8), bytes, or a function that writes it piece by piece. */
export type FileContent = string | Uint8Array | ((write: Write) => Promise<void>);

export interface FileToWrite {
  readonly path: string;
  readonly content: FileContent;
}

/** Linux writes at most 2 GiB a call; smaller pieces also keep the thread pool responsive. */
const MAX_WRITE_BYTES = 64 * 1024 * 1024;

/** What file systems that cannot synchronise a directory answer; there is nothing more to do there. */
const NO_DIRECTORY_SYNC = new Set(['EINVAL', 'ENOTSUP', 'EISDIR', 'EPERM']);

let counter = 0;

/**
 * Writes a file so that its name always leads to the old content or to the whole new one: a temporary file in the
 * same directory, flushed to the disk, is renamed over it. When anything fails the old file is as it was and the
 * temporary one is gone.
 *
 * @throws {CheckpointError} that names the path and the system's reason (no space, read-only, no such directory).
 *   What a content function throws by itself passes unchanged.
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  await writeFilesAtomic([{ path, content }]);
}

/**
 * Writes several files that belong together: each is written and flushed under a temporary name, and only when all
 * are there are they renamed, in the order given. So a full disk or a failing content function leaves every old file
 * as it was. (A power cut within the renames can leave some old and some new: `writeDirectoryAtomic` rules that out.)
 *
 * @throws {CheckpointError} as `writeFileAtomic` does.
 */
export async function writeFilesAtomic(files: Iterable<FileToWrite>): Promise<void> {
  const staged: { temporary: string; path: string }[] = [];
  try {
    for (const file of files) {
      const path = resolve(file.path);
      staged.push({ temporary: await stageFile(path, file.content), path });
    }
    for (const { temporary, path } of staged) {
      await naming(path, () => rename(temporary, path));
    }
  } catch (error) {
    for (const { temporary } of staged) await rm(temporary, { force: true });
    throw error;
  }
  for (const directory of new Set(staged.map(({ path }) => dirname(path)))) await syncDirectory(directory);
}

/**
 * Writes a directory whole or not at all. `fill` writes into a new directory beside it, whose files are then flushed
 * to the disk and which is renamed into place. An existing `dir` is renamed away first and removed at the end. A
 * crash between the two renames leaves no `dir`, but both versions beside it: `recoverDirectory` completes the work.
 *
 * Since the old directory is removed, it may hold nothing but what `owns` answers true for: otherwise nothing is
 * written or removed and the error names the entry that is in the way.
 *
 * @param owns tells whether an entry (a file's or directory's name in `dir`) is the caller's to remove.
 * @throws {CheckpointError} that names the path and the reason. What `fill` throws by itself passes unchanged.
 */
export async function writeDirectoryAtomic(
  dir: string,
  fill: (temporary: string) => Promise<void>,
  owns: (name: string) => boolean,
): Promise<void> {
  const target = resolve(dir);
  await recoverDirectory(target);
  await checkReplaceable(target, owns);
  const { temporary, old } = await createTemporaryDirectory(target);
  try {
    await fill(temporary);
    await naming(target, async () => {
      await syncTree(temporary);
      await syncDirectory(dirname(target));
    });
    await checkReplaceable(target, owns);
    await naming(target, () => swapIntoPlace(temporary, target, old));
  } catch (error) {
    // With the old version stuck under its other name, the new one stays for recoverDirectory.
    if (!(await exists(old))) await rm(temporary, { recursive: true, force: true });
    throw error;
  }
  await syncDirectory(dirname(target));
  await naming(target, () => rm(old, { recursive: true, force: true }));
}

/**
 * Completes a `writeDirectoryAtomic` that a crash cut off between its two renames: the new version, which was whole
 * by then, takes its place. Does nothing when `dir` exists or nothing was interrupted. Call it before `dir` is read.
 *
 * @returns whether there was something to complete.
 * @throws {CheckpointError} when the directory around `dir` cannot be read or changed.
 */
export async function recoverDirectory(dir: string): Promise<boolean> {
  const target = resolve(dir);
  if (await exists(target)) return false;
  const names = await leftovers(target);
  const isComplete = (name: string) => names.includes(name.replace(/\.tmp-([0-9]+-[0-9]+)$/, '.old-$1'));
  const version = names.find((name) => /\.tmp-[0-9]+-[0-9]+$/.test(name) && isComplete(name));
  if (version === undefined) return false;
  await naming(target, () => rename(join(dirname(target), version), target));
  await syncDirectory(dirname(target));
  return true;
}

/**
 * Removes what writers that were killed left beside `path`: temporary files and directories, and old versions. Only
 * for the moment when nobody writes `path`, such as the start of a training run.
 *
 * @throws {CheckpointError} when something cannot be removed.
 */
export async function removeLeftovers(path: string): Promise<void> {
  const target = resolve(path);
  await recoverDirectory(target);
  for (const name of await leftovers(target)) {
    await naming(target, () => rm(join(dirname(target), name), { recursive: true, force: true }));
  }
}

/** Runs a file operation; a system error becomes a `CheckpointError` that names `path` and what was tried. */
export async function naming<T>(path: string, operation: () => Promise<T>, verb = 'write'): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw named(path, error, verb);
  }
}

function named(path: string, error: unknown, verb = 'write'): unknown {
  if (!isSystemError(error)) return error;
  return new CheckpointError(`cannot ${verb} ${path}: ${error.message}`, { cause: error });
}

export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}

/** Writes and flushes a temporary file beside `path`; returns its name. */
async function stageFile(path: string, content: FileContent): Promise<string> {
  const { handle, temporary } = await naming(path, () => createTemporaryFile(path));
  try {
    const write: Write = (data) => naming(path, () => writeFully(handle, data));
    if (typeof content === 'function') await content(write);
    else await write(typeof content === 'string' ? new TextEncoder().encode(content) : content);
    await naming(path, () => handle.sync());
    await naming(path, () => handle.close());
    return temporary;
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw error;
  }
}

async function writeFully(handle: FileHandle, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.byteLength;) {
    const { bytesWritten } = await handle.write(
      data,
      done,
      Math.min(MAX_WRITE_BYTES, data.byteLength - done),
    );
    done += bytesWritten;
  }
}

async function createTemporaryFile(path: string): Promise<{ handle: FileHandle; temporary: string }> {
  // A killed process can have left a file of this name when process ids are reused, as they are in containers.
  for (;;) {
    const temporary = `${path}.tmp-${process.pid}-${counter++}`;
    try {
      return { handle: await open(temporary, 'wx'), temporary };
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    }
  }
}

async function createTemporaryDirectory(target: string): Promise<{ temporary: string; old: string }> {
  await naming(target, () => mkdir(dirname(target), { recursive: true }));
  for (;;) {
    const suffix = `${process.pid}-${counter++}`;
    const old = `${target}.old-${suffix}`;
    if (await exists(old)) continue;
    const temporary = `${target}.tmp-${suffix}`;
    try {
      await mkdir(temporary);
      return { temporary, old };
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw named(target, error);
    }
  }
}

async function swapIntoPlace(temporary: string, target: string, old: string): Promise<void> {
  const replaced = await exists(target);
  if (replaced) await rename(target, old);
  try {
    await rename(temporary, target);
  } catch (error) {
    // A reader may have called recoverDirectory in between, which did this rename for us.
    if (!(await exists(temporary)) && (await exists(target))) return;
    if (replaced) await rename(old, target);
    throw error;
  }
}

async function checkReplaceable(target: string, owns: (name: string) => boolean): Promise<void> {
  const path = relative(target, process.cwd());
  if (!path.startsWith('..') && !isAbsolute(path)) {
    throw new CheckpointError(`cannot replace ${target}: the working directory of this process is in it`);
  }
  const names = await naming(target, () => readdirIfAny(target));
  const foreign = names.find((name) => !owns(name));
  if (foreign !== undefined) {
    throw new CheckpointError(
      `cannot replace ${target}: it holds ${JSON.stringify(foreign)}, which is no part of what is written here`,
    );
  }
}

/** Names beside `target` that `writeFilesAtomic` or `writeDirectoryAtomic` made for it. */
async function leftovers(target: string): Promise<string[]> {
  const prefix = basename(target);
  const names = await naming(target, () => readdirIfAny(dirname(target)), 'recover');
  return names.filter(
    (name) => name.startsWith(prefix) && /^\.(tmp|old)-[0-9]+-[0-9]+$/.test(name.slice(prefix.length)),
  );
}

async function readdirIfAny(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  }
}

async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncPath(path, 'r+');
  }
  await syncDirectory(directory);
}

async function syncDirectory(directory: string): Promise<void> {
  try {
    await syncPath(directory, 'r');
  } catch (error) {
    if (isSystemError(error) && NO_DIRECTORY_SYNC.has(error.code ?? '')) return;
    throw named(directory, error);
  }
}

async function syncPath(path: string, flags: string): Promise<void> {
  const handle = await open(path, flags);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false;
    throw named(path, error, 'look at');
  }
}

function hasCode(error: unknown, code: string): boolean {
  return isSystemError(error) && error.code === code;
}

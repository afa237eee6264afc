import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { DataError } from '../errors.js';

/** What a directory or a pattern is searched for; a file named in full may have any name. */
const DATA_FILE = /\.(txt|text|md|jsonl|ndjson)(\.gz|\.zst)?$/i;

/**
 * The files that a list of files, directories (searched recursively) and patterns (`*`, `?`, `**`) stands for, each
 * once; what one entry gives is sorted by name, so the order does not depend on the file system.
 *
 * @throws DataError when an entry does not exist or gives no file.
 */
export async function resolveFiles(files: string | readonly string[]): Promise<string[]> {
  const entries = typeof files === 'string' ? [files] : files;
  if (entries.length === 0) throw new DataError('no input: the list of files is empty');
  const found = new Set<string>();
  for (const entry of entries) for (const file of await resolveEntry(entry)) found.add(file);
  return [...found];
}

async function resolveEntry(entry: string): Promise<string[]> {
  const info = await stat(entry).catch(() => undefined);
  if (info?.isDirectory()) {
    const files = await walk(entry);
    if (files.length === 0)
      throw new DataError(`no input: ${entry} has no .txt, .md or .jsonl files (or .gz, .zst)`);
    return files;
  }
  if (info !== undefined) return [entry];
  if (!/[*?]/.test(entry)) throw new DataError(`no input: ${entry} does not exist`);
  const pattern = globPattern(entry);
  const files = (await walk(globBase(entry))).filter((file) => pattern.test(toSlashes(file)));
  if (files.length === 0) throw new DataError(`no input: nothing matches ${entry}`);
  return files;
}

async function walk(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  const files: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const full = path.join(dir, entry.name);
    if (entry.isDirectory()) files.push(...(await walk(full)));
    else if (DATA_FILE.test(entry.name)) files.push(full);
  }
  return files;
}

/** The directory before the first wildcard. */
function globBase(glob: string): string {
  const fixed = toSlashes(glob).replace(/[^/]*[*?].*$/s, '');
  return fixed === '' ? '.' : fixed;
}

function globPattern(glob: string): RegExp {
  const source = toSlashes(path.normalize(glob))
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*\*\/|\*\*|\*|\?/g, (wildcard) => {
      if (wildcard === '**/') return '(?:.*/)?';
      if (wildcard === '**') return '.*';
      return wildcard === '*' ? '[^/]*' : '[^/]';
    });
  return new RegExp(`^${source}$`, 's');
}

function toSlashes(file: string): string {
  return path.sep === '/' ? file : file.replaceAll(path.sep, '/');
}

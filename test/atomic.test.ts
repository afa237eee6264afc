import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import {
  recoverDirectory,
  removeLeftovers,
  writeDirectoryAtomic,
  writeFileAtomic,
  writeFilesAtomic,
} from '../lib/io/atomic.js';
import { CheckpointError } from '../lib/errors.js';
import { mountTmpfs, temporaryDirectory } from './support/files.js';

const anything = () => true;

test('a file is written from text, bytes or a function, and replaces an old one', async (t) => {
  const dir = await temporaryDirectory(t);
  const path = join(dir, 'a.json');
  await writeFileAtomic(path, 'naïve');
  t.is(await readFile(path, 'utf8'), 'naïve');
  await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
  t.deepEqual([...(await readFile(path))], [1, 2, 3]);
  await writeFileAtomic(path, async (write) => {
    await write(Uint8Array.of(4));
    t.deepEqual([...(await readFile(path))], [1, 2, 3], 'the old content stays until the new one is whole');
    await write(Uint8Array.of(5, 6));
  });
  t.deepEqual([...(await readFile(path))], [4, 5, 6]);
  t.deepEqual(await readdir(dir), ['a.json']);
});

test('a content function that throws leaves the old file, no temporary one, and its own error', async (t) => {
  const dir = await temporaryDirectory(t);
  const path = join(dir, 'a');
  await writeFile(path, 'old');
  const failure = new RangeError('mine');
  const error = await t.throwsAsync(
    writeFilesAtomic([
      { path, content: 'new' },
      {
        path: join(dir, 'b'),
        content: async (write) => {
          await write(Uint8Array.of(1));
          throw failure;
        },
      },
    ]),
  );
  t.is(error, failure);
  t.is(await readFile(path, 'utf8'), 'old');
  t.deepEqual(await readdir(dir), ['a']);
});

test('a temporary name that a killed process left is passed over', async (t) => {
  const dir = await temporaryDirectory(t);
  for (let n = 0; n < 200; n++) await writeFile(join(dir, `a.tmp-${process.pid}-${n}`), 'left');
  await writeFileAtomic(join(dir, 'a'), 'new');
  t.is(await readFile(join(dir, 'a'), 'utf8'), 'new');
  await removeLeftovers(join(dir, 'a'));
  t.deepEqual(await readdir(dir), ['a']);
});

test('a missing directory, a file as directory and a directory as file are named', async (t) => {
  const dir = await temporaryDirectory(t);
  await writeFile(join(dir, 'file'), 'x');
  await mkdir(join(dir, 'sub'));
  const cases: [string, RegExp][] = [
    ['none/a', /cannot write .*none\/a: ENOENT/],
    ['file/a', /cannot write .*file\/a: ENOTDIR/],
    ['sub', /cannot write .*sub: EISDIR/],
  ];
  for (const [name, message] of cases) {
    await t.throwsAsync(writeFileAtomic(join(dir, name), 'x'), { instanceOf: CheckpointError, message });
  }
  t.deepEqual((await readdir(dir)).sort(), ['file', 'sub']);
});

test('a full disk leaves the old files unchanged and nothing behind', async (t) => {
  const disk = await mountTmpfs(t, '1m');
  if (disk === undefined) return;
  const old = Buffer.alloc(300_000, 7);
  await writeFileAtomic(join(disk, 'a'), old);
  const big: (write: (data: Uint8Array) => Promise<void>) => Promise<void> = async (write) => {
    for (let n = 0; n < 100; n++) await write(new Uint8Array(50_000));
  };
  const expected = {
    instanceOf: CheckpointError,
    message: /cannot write .*\/b: ENOSPC/,
    code: 'MF_CHECKPOINT',
  };
  await t.throwsAsync(
    writeFilesAtomic([
      { path: join(disk, 'a'), content: 'new' },
      { path: join(disk, 'b'), content: big },
    ]),
    expected,
  );
  await t.throwsAsync(
    writeDirectoryAtomic(
      join(disk, 'dir'),
      async (temporary) => {
        await writeFileAtomic(join(temporary, 'b'), big);
      },
      anything,
    ),
    expected,
  );
  t.deepEqual(await readdir(disk), ['a']);
  t.true(old.equals(await readFile(join(disk, 'a'))));
});

test('a read-only disk is named, and the old files stay', async (t) => {
  const disk = await mountTmpfs(t, '1m');
  if (disk === undefined) return;
  await mkdir(join(disk, 'dir'));
  await writeFile(join(disk, 'dir', 'a'), 'old');
  execFileSync('mount', ['-o', 'remount,ro', disk]);
  const expected = { instanceOf: CheckpointError, message: /cannot write .*: EROFS/ };
  await t.throwsAsync(writeFileAtomic(join(disk, 'dir', 'a'), 'new'), expected);
  await t.throwsAsync(
    writeDirectoryAtomic(join(disk, 'dir'), () => Promise.resolve(), anything),
    expected,
  );
  t.is(await readFile(join(disk, 'dir', 'a'), 'utf8'), 'old');
});

test('a directory is created with its parents and replaced whole', async (t) => {
  const root = await temporaryDirectory(t);
  const dir = join(root, 'runs', 'checkpoint');
  await writeDirectoryAtomic(dir, (temporary) => writeFile(join(temporary, 'a'), '1'), anything);
  await writeDirectoryAtomic(
    dir,
    async (temporary) => {
      await mkdir(join(temporary, 'nested'));
      await writeFile(join(temporary, 'nested', 'b'), '2');
      t.deepEqual(await readdir(dir), ['a']);
    },
    (name) => name === 'a',
  );
  t.deepEqual(await readdir(dir), ['nested']);
  t.deepEqual(await readdir(join(root, 'runs')), ['checkpoint']);
});

test('a failing fill leaves the old directory', async (t) => {
  const root = await temporaryDirectory(t);
  const dir = join(root, 'checkpoint');
  await mkdir(dir);
  await writeFile(join(dir, 'a'), 'old');
  const failure = new Error('mine');
  const fill = async (temporary: string) => {
    await writeFile(join(temporary, 'a'), 'new');
    throw failure;
  };
  t.is(await t.throwsAsync(writeDirectoryAtomic(dir, fill, anything)), failure);
  t.is(await readFile(join(dir, 'a'), 'utf8'), 'old');
  t.deepEqual(await readdir(root), ['checkpoint']);
});

test('what is not the caller’s own is never removed', async (t) => {
  const root = await temporaryDirectory(t);
  await writeFile(join(root, 'thesis.tex'), 'years of work');
  const write = writeDirectoryAtomic(
    root,
    () => Promise.resolve(),
    (name) => name === 'config.json',
  );
  await t.throwsAsync(write, { instanceOf: CheckpointError, message: /"thesis.tex", which is no part/ });
  await t.throwsAsync(
    writeDirectoryAtomic(process.cwd(), () => Promise.resolve(), anything),
    { instanceOf: CheckpointError, message: /working directory/ },
  );
  t.is(await readFile(join(root, 'thesis.tex'), 'utf8'), 'years of work');
});

test('a crash at any instant leaves the old or the new directory to load', async (t) => {
  const root = await temporaryDirectory(t);
  const dir = join(root, 'c');
  const make = async (name: string, content: string) => {
    await mkdir(join(root, name));
    await writeFile(join(root, name, 'a'), content);
  };
  const content = async () => {
    await recoverDirectory(dir);
    return readFile(join(dir, 'a'), 'utf8');
  };
  await make('c', 'old');
  await make('c.tmp-1-0', 'partial'); // killed while filling
  t.false(await recoverDirectory(dir));
  t.is(await content(), 'old');

  await make('c.tmp-2-0', 'new');
  await rename(dir, join(root, 'c.old-2-0')); // killed between the renames
  t.true(await recoverDirectory(dir));
  t.is(await content(), 'new'); // and now as if killed before the old one was removed

  await removeLeftovers(dir);
  t.deepEqual(await readdir(root), ['c']);
  t.is(await content(), 'new');
});

test('a leftover is not mistaken for a version: a directory that was deleted stays deleted', async (t) => {
  const root = await temporaryDirectory(t);
  await mkdir(join(root, 'c.old-1-0'));
  await mkdir(join(root, 'c.tmp-2-0'));
  await mkdir(join(root, 'cc.tmp-1-0'));
  t.false(await recoverDirectory(join(root, 'c')));
  await removeLeftovers(join(root, 'c'));
  t.deepEqual(await readdir(root), ['cc.tmp-1-0']);
  t.false(await recoverDirectory(join(root, 'none', 'c')));
});

test('a process killed while it writes leaves the old or the new content', async (t) => {
  const root = await temporaryDirectory(t);
  const dir = join(root, 'c');
  const script = `
    import { writeFile } from 'node:fs/promises';
    const { writeDirectoryAtomic } = await import(${JSON.stringify(new URL('../lib/io/atomic.ts', import.meta.url).href)});
    for (let n = 0; ; n++) {
      await writeDirectoryAtomic(${JSON.stringify(dir)}, async (temporary) => {
        await writeFile(temporary + '/a', String(n));
        await writeFile(temporary + '/b', String(n));
      }, () => true);
      console.log(n);
    }`;
  for (let run = 0; run < 3; run++) {
    const writer = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(writer.stdout, 'data'); // from here on there is a version to lose
    await setTimeout(5 + 7 * run);
    writer.kill('SIGKILL');
    t.deepEqual(await once(writer, 'exit'), [null, 'SIGKILL']);
    await removeLeftovers(dir);
    t.is(await readFile(join(dir, 'a'), 'utf8'), await readFile(join(dir, 'b'), 'utf8'));
    t.deepEqual(await readdir(root), ['c']);
  }
});

import { readdirSync, readlinkSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { readDocuments, type CorpusOptions } from '../lib/data/corpus.js';
import { DataError, ValueError } from '../lib/errors.js';
import { syntheticTexts, temporaryDir } from './support/data.js';

async function collect(options: CorpusOptions) {
  const documents = [];
  for await (const document of readDocuments(options)) documents.push(document);
  return documents;
}

const texts = async (options: CorpusOptions) => (await collect(options)).map(({ text }) => text);

const jsonl = (values: readonly string[]) => values.map((text) => JSON.stringify({ text })).join('\n');

test('a text file is one document, or several between delimiters', async (t) => {
  const file = path.join(await temporaryDir(t), 'a.txt');
  await writeFile(file, '\ufeffone\r\ntwo<|sep|>thrée<|sep|><|sep|><|sep<|sep|>|>🙂');
  t.deepEqual(await texts({ files: file }), ['one\r\ntwo<|sep|>thrée<|sep|><|sep|><|sep<|sep|>|>🙂']);
  t.deepEqual(await collect({ files: file, delimiter: '<|sep|>' }), [
    { text: 'one\r\ntwo', source: file, index: 0 },
    { text: 'thrée', source: file, index: 1 },
    { text: '<|sep', source: file, index: 2 },
    { text: '|>🙂', source: file, index: 3 },
  ]);
});

test('delimiters and characters may lie across the pieces in which a file is read', async (t) => {
  const file = path.join(await temporaryDir(t), 'a.txt');
  const piece = 1 << 18;
  for (let shift = -6; shift <= 1; shift++) {
    const parts = ['x'.repeat(piece + shift), '🙂'.repeat(3), `${'y'.repeat(piece - 20)}--`, 'end'];
    await writeFile(file, parts.join('-----'));
    const expected = parts.join('-----').split('-----');
    t.deepEqual(await texts({ files: file, delimiter: '-----' }), expected);
  }
});

test('JSON lines: field, blank lines, both line ends, a last line without an end', async (t) => {
  const file = path.join(await temporaryDir(t), 'a.jsonl');
  await writeFile(
    file,
    '{"text":"a\\nb","body":"B"}\r\n\n  \n{"body":"","text":"c"}\n{"text":"d","body":"D"}',
  );
  t.deepEqual(await texts({ files: file }), ['a\nb', 'c', 'd']);
  t.deepEqual(
    (await collect({ files: file, textField: 'body' })).map(({ text, index }) => [text, index]),
    [
      ['B', 0],
      ['D', 1],
    ],
  );
});

test('long lines and documents are read whole up to the limit', async (t) => {
  const dir = await temporaryDir(t);
  const long = `${'long '.repeat(600_000)}é`;
  await writeFile(path.join(dir, 'a.jsonl'), jsonl(['short', long, 'short']));
  t.deepEqual(await texts({ files: dir }), ['short', long, 'short']);
  await t.throwsAsync(texts({ files: dir, maxDocumentLength: 1_000_000 }), {
    instanceOf: DataError,
    message: /a\.jsonl: line 2 is longer than 1000000/,
  });
  await writeFile(path.join(dir, 'b.txt'), long);
  await t.throwsAsync(texts({ files: path.join(dir, 'b.txt'), maxDocumentLength: 1_000_000 }), {
    instanceOf: DataError,
    message: /b\.txt: document 1 is longer/,
  });
});

test('gzip and zstd give the same documents as the plain file', async (t) => {
  const dir = await temporaryDir(t);
  const expected = syntheticTexts(700, 5);
  const content = Buffer.from(jsonl(expected));
  await writeFile(path.join(dir, 'a.jsonl'), content);
  await writeFile(path.join(dir, 'b.jsonl.gz'), gzipSync(content));
  t.deepEqual(await texts({ files: path.join(dir, 'b.jsonl.gz') }), expected);
  t.deepEqual(await texts({ files: dir }), [...expected, ...expected]);
  // Made by: zstd -19 of syntheticTexts(700, 5) as above, and a second frame of syntheticTexts(2, 6).
  const zstd = path.join(import.meta.dirname, 'fixtures', 'two-frames.jsonl.zst');
  t.deepEqual(await texts({ files: zstd }), [...expected, ...syntheticTexts(2, 6)]);
});

test('a damaged compressed file is refused with its name', async (t) => {
  const dir = await temporaryDir(t);
  const gz = gzipSync(jsonl(syntheticTexts(100)));
  const zst = await readFile(path.join(import.meta.dirname, 'fixtures', 'two-frames.jsonl.zst'));
  for (const [name, bytes] of [
    ['cut.txt.gz', gz.subarray(0, gz.length - 20)],
    ['no.txt.gz', Buffer.from('plain text')],
    ['cut.txt.zst', zst.subarray(0, zst.length - 20)],
    ['no.txt.zst', Buffer.from('plain text, longer than a frame header')],
  ] as const) {
    await writeFile(path.join(dir, name), bytes);
    await t.throwsAsync(texts({ files: path.join(dir, name) }), {
      instanceOf: DataError,
      message: new RegExp(`${name}: cannot be read`),
    });
  }
});

test('bad lines are refused with file and line', async (t) => {
  const file = path.join(await temporaryDir(t), 'a.jsonl');
  for (const [line, message] of [
    ['{"text":', /a\.jsonl:3: not valid JSON/],
    ['"text"', /a\.jsonl:3: the field "text" is missing/],
    ['{"other":"x"}', /a\.jsonl:3: the field "text" is missing/],
    ['{"text":7}', /a\.jsonl:3: the field "text" is number/],
    ['{"text":null}', /a\.jsonl:3: the field "text" is null/],
  ] as const) {
    await writeFile(file, `{"text":"ok"}\n\n${line}\n`);
    await t.throwsAsync(texts({ files: file }), { instanceOf: DataError, message });
  }
  await writeFile(file, Buffer.from([0x22, 0xff, 0xfe]));
  await t.throwsAsync(texts({ files: file }), {
    instanceOf: DataError,
    message: /a\.jsonl: not valid UTF-8/,
  });
  await writeFile(file, Buffer.from('{"text":"é"}').subarray(0, 10));
  await t.throwsAsync(texts({ files: file }), {
    instanceOf: DataError,
    message: /a\.jsonl: not valid UTF-8/,
  });
});

test('directories and patterns are searched in order of names', async (t) => {
  const dir = await temporaryDir(t);
  await mkdir(path.join(dir, 'sub', 'deep'), { recursive: true });
  for (const name of ['b.txt', 'a.txt', 'image.png', 'sub/c.md', 'sub/deep/d.txt', 'x[1].txt']) {
    await writeFile(path.join(dir, name), name);
  }
  const found = (...entries: string[]) => texts({ files: entries.map((entry) => path.join(dir, entry)) });
  t.deepEqual(await found(''), ['a.txt', 'b.txt', 'sub/c.md', 'sub/deep/d.txt', 'x[1].txt']);
  t.deepEqual(await found('*.txt'), ['a.txt', 'b.txt', 'x[1].txt']);
  t.deepEqual(await found('?.txt', 'a.txt'), ['a.txt', 'b.txt']);
  t.deepEqual(await found('**/*.txt'), ['a.txt', 'b.txt', 'sub/deep/d.txt', 'x[1].txt']);
  t.deepEqual(await found('sub/**'), ['sub/c.md', 'sub/deep/d.txt']);
  t.deepEqual(await found('x[1].*'), ['x[1].txt']);
  t.deepEqual(await found('image.png'), ['image.png']);
});

test('nothing to read is an error', async (t) => {
  const dir = await temporaryDir(t);
  const nothing = { instanceOf: DataError, message: /no input/ };
  await t.throwsAsync(texts({ files: [] }), nothing);
  await t.throwsAsync(texts({ files: dir }), nothing);
  await t.throwsAsync(texts({ files: path.join(dir, 'missing.txt') }), nothing);
  await t.throwsAsync(texts({ files: path.join(dir, '*.txt') }), nothing);
  await t.throwsAsync(texts({ files: dir, delimiter: '' }), { instanceOf: ValueError });
});

const openFiles = () =>
  readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the listing itself
    }
  });

(process.platform === 'linux' ? test : test.skip)('a reader that stops early closes its file', async (t) => {
  const dir = await temporaryDir(t);
  await writeFile(path.join(dir, 'a.jsonl.gz'), gzipSync(jsonl(syntheticTexts(20_000))));
  const isOpen = () => openFiles().some((file) => file.startsWith(dir));
  for await (const { index } of readDocuments({ files: dir })) {
    if (index === 0) t.true(isOpen());
    if (index === 3) break;
  }
  for (let wait = 0; wait < 100 && isOpen(); wait++) await setTimeout(10);
  t.false(isOpen());
});

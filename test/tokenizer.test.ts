import { mkdir, readFile, writeFile } from 'node:fs/promises';
import Module from 'node:module';
import path from 'node:path';
import test from 'ava';
import { linePieces } from '../lib/data/line-pieces.js';
import { trainTokenizer } from '../lib/data/train-tokenizer.js';
import { Tokenizer, type TokenizerJson } from '../lib/data/tokenizer.js';
import { createRandom } from '../lib/data/random.js';
import { DataError, ValueError } from '../lib/errors.js';
import { letterTokenizer, syntheticTexts, temporaryDir } from './support/data.js';

const texts = [
  ...syntheticTexts(200),
  'Das Maß ist voll; 日本語の文章。',
  'def f(x):\n    return x  # 🙂\r\n',
];
const trained = await trainTokenizer({ texts, vocabSize: 600 });

const TRICKY = [
  '',
  ' ',
  '  leading and trailing  ',
  'a <|endoftext|> b<|endoftext|>',
  "don't ,  clean . up ' s",
  'tabs\tand\r\nlines\n\n\n  x',
  'e\u0301 é 日本語 🙂👩‍👩‍👧 \u0000 \u0085x \ufeffx \u00a0x',
  '\ufeffmark',
  'a'.repeat(5000),
];

function randomText(seed: number): string {
  const random = createRandom(seed);
  const ranges = [0x20, 0x7f, 0x100, 0x3000, 0xd7ff, 0x10000, 0x1f700];
  const char = () => {
    const i = random.below(ranges.length - 1);
    const [from = 0, to = 0] = ranges.slice(i);
    const code = from + random.below(to - from);
    return code >= 0xd800 && code < 0xe000 ? ' ' : String.fromCodePoint(code);
  };
  return Array.from({ length: 60 }, char).join('');
}

/** Merges across every kind of boundary, which show where the pattern splits: LF LF, space LF, LF space, U+0085 ... */
const boundaryMerges = [
  ['\u010a', '\u010a'],
  ['\u0120', '\u010a'],
  ['\u010a', '\u0120'],
  ['\u010d', '\u010a'],
  ['\u0120', '\u00c2'],
  ['\u0120', '\u00ef'],
  ['\u0120', 'x'],
];

/** The trained tokenizer's bytes with `boundaryMerges`. */
async function boundaryTokenizer(dir: string): Promise<Tokenizer> {
  await trained.save(dir);
  const json = JSON.parse(await readFile(path.join(dir, 'tokenizer.json'), 'utf8')) as TokenizerJson;
  const { vocab } = json.model as { vocab: Record<string, number> };
  const bytes = Object.entries(vocab).filter(([, id]) => id <= 256);
  const merged = boundaryMerges.map((merge, i): [string, number] => [merge.join(''), 257 + i]);
  return new Tokenizer({
    ...json,
    model: { ...json.model, vocab: Object.fromEntries([...bytes, ...merged]), merges: boundaryMerges },
  });
}

test('every text round-trips', (t) => {
  const all = [...TRICKY, ...texts, ...Array.from({ length: 50 }, (_, seed) => randomText(seed))];
  for (const text of all) t.is(trained.decode(trained.encode(text)), text);
});

test('a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD', (t) => {
  t.is(trained.decode(trained.encode('a\ud800b')), 'a\ufffdb');
});

test('the native package gives the same ids', async (t) => {
  const all = [...TRICKY, ...texts, 'a\ud800b', 'x\u0085 \u0085y\ufeff \ufeffz'];
  t.deepEqual(
    await trained.encodeBatch(all),
    all.map((text) => trained.encode(text)),
  );
  const boundaries = await boundaryTokenizer(await temporaryDir(t));
  const ids = await boundaries.encodeBatch(all);
  t.deepEqual(
    ids,
    all.map((text) => boundaries.encode(text)),
  );
});

test('training gives exactly the size asked for, the special token first, all bytes, and is deterministic', async (t) => {
  t.is(trained.vocabSize, 600);
  t.is(trained.eosId, 0);
  t.is(trained.decode([0]), '<|endoftext|>');
  t.is(trained.decode([0, 1], { skipSpecialTokens: true }), '\0');
  t.deepEqual(trained.encode('\0'), [1]);
  t.true(trained.encode(texts[0] ?? '').length < (texts[0]?.length ?? 0) / 2); // it did learn merges
  const again = await trainTokenizer({ texts, vocabSize: 600 });
  t.is(again.hash, trained.hash);
  const smallest = await trainTokenizer({ texts: ['x'], vocabSize: 258, specialTokens: ['<|a|>', '<|b|>'] });
  t.is(smallest.eosId, 0);
  t.deepEqual(smallest.encode('<|b|>'), [1]);
});

test('training reads files', async (t) => {
  const dir = await temporaryDir(t);
  await writeFile(path.join(dir, 'a.jsonl'), texts.map((text) => JSON.stringify({ text })).join('\n'));
  const tokenizer = await trainTokenizer({ files: dir, vocabSize: 600 });
  t.is(tokenizer.hash, trained.hash);
});

test('saving and reading back gives the same tokenizer and keeps unknown fields of its config', async (t) => {
  const dir = path.join(await temporaryDir(t), 'new', 'dir');
  await trained.save(dir);
  for (const place of [dir, path.join(dir, 'tokenizer.json')]) {
    const copy = await Tokenizer.fromFile(place);
    t.is(copy.hash, trained.hash);
    t.is(copy.eosId, 0);
    t.deepEqual(copy.encode(texts[0] ?? ''), trained.encode(texts[0] ?? ''));
  }
  const file = path.join(dir, 'tokenizer_config.json');
  const config = JSON.parse(await readFile(file, 'utf8')) as object;
  const padded = { ...config, pad_token: { content: '<|endoftext|>' }, chat_template: 'kept' };
  await writeFile(file, JSON.stringify(padded));
  const copy = await Tokenizer.fromPretrained(dir);
  t.is(copy.padId, 0);
  await copy.save(dir);
  t.deepEqual(JSON.parse(await readFile(file, 'utf8')), padded);
});

test('a decode stream gives whole characters and in sum the decoded text', (t) => {
  for (const text of [...TRICKY, ...texts.slice(-3), randomText(7)]) {
    const stream = trained.createDecodeStream();
    const deltas = trained.encode(text).map((id) => stream.push(id));
    t.false(deltas.some((delta) => delta.includes('\ufffd')));
    t.is(deltas.join('') + stream.end(), text);
  }
});

test('a decode stream holds nothing back longer than needed', (t) => {
  const stream = trained.createDecodeStream();
  const smiley = [...Buffer.from('🙂')].map((byte) => byte + 1); // the byte tokens follow the special token
  t.deepEqual(
    [65 + 1, ...smiley, 66 + 1].map((id) => stream.push(id)),
    ['A', '', '', '', '🙂', 'B'],
  );
});

test('a decode stream of bytes that are no text still sums to the decoded text', (t) => {
  const random = createRandom(3);
  for (let round = 0; round < 20; round++) {
    const ids = Array.from({ length: 80 }, () => random.below(trained.vocabSize));
    const stream = trained.createDecodeStream();
    t.is(ids.map((id) => stream.push(id)).join('') + stream.end(), trained.decode(ids));
  }
});

test('a decode stream can leave special tokens out', (t) => {
  const stream = trained.createDecodeStream({ skipSpecialTokens: true });
  t.is(stream.push(trained.encode('a<|endoftext|>b')) + stream.end(), 'ab');
});

test('a tokenizer that does not fit a model is refused, naming both sizes', (t) => {
  t.notThrows(() => trained.assertFits(600));
  t.throws(() => trained.assertFits(599), { instanceOf: DataError, message: /600 ids.*599/ });
});

test('ids outside the vocabulary and things that are no text are refused', (t) => {
  for (const id of [600, -1, 1.5, NaN]) {
    t.throws(() => trained.decode([id]), {
      instanceOf: ValueError,
      message: /outside the vocabulary of 600/,
    });
  }
  t.throws(() => trained.encode(undefined as unknown as string), { instanceOf: ValueError });
  const model = { type: 'WordPiece', unk_token: '[UNK]', vocab: { a: 0 }, continuing_subword_prefix: '##' };
  const parts = {
    normalizer: null,
    post_processor: null,
    decoder: null,
    pre_tokenizer: { type: 'WhitespaceSplit' },
  };
  const wordPiece = new Tokenizer({ model, added_tokens: [], ...parts });
  t.deepEqual(wordPiece.encode('a a'), [0, 0]);
  t.throws(() => wordPiece.encode('a b'), { instanceOf: DataError, message: /no token for/ });
});

test('unusable files are refused with their name', async (t) => {
  const dir = await temporaryDir(t);
  await t.throwsAsync(Tokenizer.fromFile(dir), {
    instanceOf: DataError,
    message: /tokenizer\.json does not exist/,
  });
  const file = path.join(dir, 'tokenizer.json');
  for (const content of [
    '{',
    '[]',
    '{}',
    '3',
    '{"model":{"type":"BPE","vocab":{},"merges":[]},"added_tokens":[]}',
  ]) {
    await writeFile(file, content);
    await t.throwsAsync(Tokenizer.fromFile(dir), { instanceOf: DataError, message: /tokenizer\.json: / });
  }
  const other = path.join(dir, 'other');
  await mkdir(other);
  await trained.save(other);
  await writeFile(path.join(other, 'tokenizer_config.json'), '{"eos_token":"</nothing>"}');
  await t.throwsAsync(Tokenizer.fromFile(other), {
    instanceOf: DataError,
    message: /<\/nothing>.*not in the vocab/,
  });
});

test('impossible training is refused', async (t) => {
  await t.throwsAsync(trainTokenizer({ texts, vocabSize: 256 }), {
    instanceOf: ValueError,
    message: /at least 257/,
  });
  await t.throwsAsync(trainTokenizer({ texts: ['abc'], vocabSize: 500 }), {
    instanceOf: DataError,
    message: /vocabSize is 500, but these texts give only 259/,
  });
  await t.throwsAsync(trainTokenizer({ vocabSize: 500 }), { instanceOf: ValueError });
  await t.throwsAsync(trainTokenizer({ texts, vocabSize: 600, specialTokens: ['a'] }), {
    instanceOf: ValueError,
  });
});

test('cutting a long text into pieces does not change its ids', async (t) => {
  const lines = [
    ...TRICKY,
    ...texts.slice(-5),
    'x.\n\ny',
    ' \nz',
    '<|endoftext|>',
    'é',
    '<|endo',
    'ftext|>',
    '\r',
    '1',
  ];
  const tokenizer = await boundaryTokenizer(await temporaryDir(t));
  const random = createRandom(17);
  for (let round = 0; round < 300; round++) {
    const text = Array.from({ length: 12 }, () => lines[random.below(lines.length)]).join('\n');
    const pieces = [...linePieces(text, 1 + random.below(40))];
    t.is(pieces.join(''), text);
    t.deepEqual(
      pieces.flatMap((piece) => tokenizer.encode(piece)),
      tokenizer.encode(text),
    );
  }
  const long = texts.join('\n').repeat(60);
  t.true([...linePieces(long, 10_000)].length > 40);
  t.true(long.length > 2 ** 21); // two pieces or more
  t.deepEqual((await trained.encodeBatch(['x', long, ''])).slice(0, 3), [
    trained.encode('x'),
    trained.encode(long),
    [],
  ]);
});

test('truncation and padding asked for in a file are not applied', async (t) => {
  const dir = await temporaryDir(t);
  await trained.save(dir);
  const file = path.join(dir, 'tokenizer.json');
  const json = JSON.parse(await readFile(file, 'utf8')) as object;
  const truncation = { direction: 'Right', max_length: 5, strategy: 'LongestFirst', stride: 0 };
  const padding = {
    strategy: { Fixed: 9 },
    direction: 'Right',
    pad_id: 0,
    pad_type_id: 0,
    pad_token: '<|endoftext|>',
  };
  await writeFile(
    file,
    JSON.stringify({ ...json, truncation, padding: { ...padding, pad_to_multiple_of: null } }),
  );
  const tokenizer = await Tokenizer.fromFile(dir);
  for (const text of [texts[0] ?? '', 'x']) {
    t.deepEqual(await tokenizer.encodeBatch([text]), [trained.encode(text)]);
    t.deepEqual(tokenizer.encode(text), trained.encode(text));
  }
});

test.serial('without the native package encodeBatch works and training says what to install', async (t) => {
  const module = Module as unknown as { _resolveFilename: (request: string, ...rest: unknown[]) => string };
  const original = module._resolveFilename;
  module._resolveFilename = (request, ...rest) => {
    if (request === 'tokenizers') throw new Error('not installed');
    return original(request, ...rest);
  };
  t.teardown(() => (module._resolveFilename = original));
  await t.throwsAsync(trainTokenizer({ texts, vocabSize: 600 }), {
    instanceOf: DataError,
    message: /npm install tokenizers/,
  });
  t.deepEqual(await letterTokenizer().encodeBatch(['abc', 'c']), [[1, 2, 3], [3]]);
});

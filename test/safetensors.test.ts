import { readFileSync, readdirSync } from 'node:fs';
import { mkdir, open, readFile, readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { CheckpointError, ShapeError, ValueError } from '../lib/errors.js';
import { writeFileAtomic } from '../lib/io/atomic.js';
import {
  SafetensorsFile,
  writeSafetensors,
  type TensorSource,
  type TensorToWrite,
} from '../lib/io/safetensors.js';
import { ShardedCheckpoint, isWeightsFile, saveCheckpoint } from '../lib/io/sharded-checkpoint.js';
import { mountTmpfs, temporaryDirectory } from './support/files.js';

const GOLDEN = fileURLToPath(new URL('./golden/', import.meta.url));
const goldenFiles = readdirSync(GOLDEN, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.safetensors'))
  .map((name) => join(GOLDEN, name));

/** What the format's own library (safetensors 0.8.0, Python) writes for `referenceTensors`. */
const REFERENCE =
  '{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[],"data_offsets":[0,8]},' +
  '"e":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]},' +
  '"a.x":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},' +
  '"j":{"dtype":"I32","shape":[1],"data_offsets":[24,28]},"h":{"dtype":"F16","shape":[1],"data_offsets":[28,30]},' +
  '"m":{"dtype":"I8","shape":[3],"data_offsets":[30,33]},"u":{"dtype":"U8","shape":[1],"data_offsets":[33,34]},' +
  '"t":{"dtype":"BOOL","shape":[1],"data_offsets":[34,35]}}  ' +
  '\x07\0\0\0\0\0\0\0\0\0\x80?\0\0\0@\0\0\xc0?\0\0\0\xc0\x01\0\0\0\0<\x01\xff\x03\x01\x01';

function tensor(
  name: string,
  dtype: TensorToWrite['dtype'],
  shape: number[],
  data: NodeJS.TypedArray,
): TensorToWrite {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, dtype, shape, byteLength: bytes.byteLength, chunks: () => [bytes] };
}

const referenceTensors = [
  tensor('b', 'F32', [2], Float32Array.of(1.5, -2)),
  tensor('a.x', 'F32', [2, 1], Float32Array.of(1, 2)),
  tensor('m', 'I8', [3], Int8Array.of(1, -1, 3)),
  tensor('i', 'I64', [], BigInt64Array.of(7n)),
  tensor('t', 'BOOL', [1], Uint8Array.of(1)),
  tensor('e', 'F64', [0, 3], new Float64Array(0)),
  tensor('h', 'F16', [1], Uint16Array.of(0x3c00)),
  tensor('j', 'I32', [1], Int32Array.of(1)),
  tensor('u', 'U8', [1], Uint8Array.of(1)),
];

/** All tensors of a source, each to be streamed in pieces of an awkward size. */
function copyOf(source: TensorSource): TensorToWrite[] {
  return [...source.entries].map(([name, { dtype, shape, begin, end }]) => ({
    name,
    dtype,
    shape,
    byteLength: end - begin,
    async *chunks() {
      for (let offset = 0; offset < end - begin; offset += 1001) {
        const chunk = new Uint8Array(Math.min(1001, end - begin - offset));
        await source.readInto(name, chunk, offset);
        yield chunk;
      }
    },
  }));
}

function encode(header: string | Uint8Array, data = 0, length?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.byteLength + data);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.byteLength), true);
  bytes.set(text, 8);
  return bytes;
}

async function opens(t: ExecutionContext, bytes: Uint8Array): Promise<SafetensorsFile> {
  const path = join(await temporaryDirectory(t), 'model.safetensors');
  await writeFile(path, bytes);
  const file = await SafetensorsFile.open(path);
  t.teardown(() => file.close());
  return file;
}

test('the golden files parse, and a copy of a copy is the copy, bit by bit', async (t) => {
  const dir = await temporaryDirectory(t);
  t.true(goldenFiles.length >= 10);
  for (const path of goldenFiles) {
    await using golden = await SafetensorsFile.open(path);
    const metadata = Object.fromEntries(golden.metadata);
    await writeSafetensors(join(dir, 'first'), copyOf(golden), metadata);
    await using first = await SafetensorsFile.open(join(dir, 'first'));
    await writeSafetensors(join(dir, 'second'), copyOf(first).reverse(), metadata);
    t.true((await readFile(join(dir, 'first'))).equals(await readFile(join(dir, 'second'))));

    t.deepEqual([...first.metadata], [...golden.metadata]);
    t.deepEqual([...first.entries.keys()].sort(), [...golden.entries.keys()].sort());
    const whole = readFileSync(path);
    const dataStart = 8 + Number(whole.readBigUInt64LE(0));
    for (const [name, { dtype, shape, begin, end }] of golden.entries) {
      t.like(first.entries.get(name), { dtype, shape });
      t.deepEqual(await first.read(name), new Uint8Array(whole.subarray(dataStart + begin, dataStart + end)));
    }
  }
});

test('the bytes are those of the format’s own library, whatever the order of the tensors', async (t) => {
  const path = join(await temporaryDirectory(t), 'x');
  await writeSafetensors(path, referenceTensors);
  const bytes = Buffer.from(`\x10\x02\0\0\0\0\0\0${REFERENCE}`, 'latin1');
  t.true(bytes.equals(await readFile(path)));
  await using file = await SafetensorsFile.open(path);
  t.deepEqual(new Float32Array((await file.read('b')).buffer), Float32Array.of(1.5, -2));
  t.deepEqual(file.entries.get('e'), { dtype: 'F64', shape: [0, 3], begin: 8, end: 8 });
  t.deepEqual(await file.read('e'), new Uint8Array(0));
});

test('a tensor is read in parts', async (t) => {
  await using file = await SafetensorsFile.open(join(GOLDEN, 'mlp-gate', 'model.safetensors'));
  const name = 'transformer.wte.weight';
  const whole = await file.read(name);
  const part = new Uint8Array(40);
  await file.readInto(name, part.subarray(4, 36), whole.byteLength - 32);
  t.deepEqual(part.subarray(4, 36), whole.subarray(-32));
  t.deepEqual([...part.subarray(0, 4), ...part.subarray(36)], [0, 0, 0, 0, 0, 0, 0, 0]);
  await file.readInto(name, new Uint8Array(0), whole.byteLength);
});

test('reading what is not there is an error that names it', async (t) => {
  const file = await SafetensorsFile.open(join(GOLDEN, 'mlp-gate', 'model.safetensors'));
  await t.throwsAsync(file.read('wte'), { instanceOf: CheckpointError, message: /no tensor "wte"/ });
  for (const [length, offset] of [
    [12417, 0],
    [1, 12416],
    [0, 12417],
    [1, -1],
    [1, 0.5],
    [1, NaN],
  ] as const) {
    const read = file.readInto('transformer.wte.weight', new Uint8Array(length), offset);
    await t.throwsAsync(read, { instanceOf: ShapeError, message: /"transformer.wte.weight" .* 12416 bytes/ });
  }
  await file.close();
  await file.close();
  const expected = { instanceOf: CheckpointError, message: /closed/ };
  await t.throwsAsync(file.read('transformer.wte.weight'), expected);
});

test('a file that shrinks while it is open is an error, not zeros', async (t) => {
  const path = join(await temporaryDirectory(t), 'x');
  await writeSafetensors(path, referenceTensors);
  await using file = await SafetensorsFile.open(path);
  await truncate(path, (await stat(path)).size - 3);
  await t.throwsAsync(file.read('m'), { instanceOf: CheckpointError, message: /cut off/ });
});

test('a file of 9 GB is opened without reading it, and its last bytes are there', async (t) => {
  const path = join(await temporaryDirectory(t), 'model.safetensors');
  const big = 9_000_000_000;
  const header = `{"big":{"dtype":"U8","shape":[${big}],"data_offsets":[0,${big}]},"far":{"dtype":"I32","shape":[2],"data_offsets":[${big},${big + 8}]}}`;
  const handle = await open(path, 'w');
  await handle.write(encode(header));
  await handle.write(new Uint8Array(Int32Array.of(-5, 6).buffer), 0, 8, 8 + header.length + big);
  await handle.close();
  await using file = await SafetensorsFile.open(path);
  t.deepEqual(new Int32Array((await file.read('far')).buffer), Int32Array.of(-5, 6));
  const tail = new Uint8Array(4).fill(9);
  await file.readInto('big', tail, big - 4);
  t.deepEqual([...tail], [0, 0, 0, 0]);
});

const F32 = (shape: string, begin: number | string, end: number | string) =>
  `{"dtype":"F32","shape":${shape},"data_offsets":[${begin},${end}]}`;

const hostile: [what: string, bytes: Uint8Array, message: RegExp][] = [
  ['empty', new Uint8Array(0), /0 bytes are too few/],
  ['7 bytes', new Uint8Array(7), /7 bytes are too few/],
  ['no header', new Uint8Array(8), /damaged header: not valid JSON/],
  ['a length of 2^63', encode('{}', 0, 2n ** 63n), /a header of 9223372036854775808 bytes/],
  ['a length of 2^64 - 1', encode('{}', 0, 2n ** 64n - 1n), /a header of 18446744073709551615 bytes/],
  ['a length past the end', encode('{}', 0, 3n), /a header of 3 bytes in a file of 10/],
  ['not JSON', encode('GGUF'), /damaged header: not valid JSON: expected a value at character 0/],
  ['cut off', encode('{"a":'), /damaged header: not valid JSON/],
  ['trailing text', encode('{} {}'), /expected the end at character 3/],
  ['not UTF-8', encode(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), /damaged header: .*utf-8/],
  ['an array', encode('[]'), /no JSON object/],
  ['null', encode('null'), /no JSON object/],
  ['deep nesting', encode('['.repeat(1_000_000)), /at most 64 levels/],
  ['a name twice', encode(`{"a":${F32('[1]', 0, 4)},"a":${F32('[1]', 0, 4)}}`, 4), /"a" occurs again/],
  [
    'a name twice, escaped',
    encode(`{"a":${F32('[0]', 0, 0)},"\\u0061":${F32('[0]', 0, 0)}}`),
    /"a" occurs again/,
  ],
  [
    'a field twice',
    encode('{"a":{"dtype":"U8","dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
    /"dtype" occurs/,
  ],
  ['no dtype', encode('{"a":{"shape":[0],"data_offsets":[0,0]}}'), /tensor "a" has dtype nothing/],
  [
    'a dtype of the prototype',
    encode('{"a":{"dtype":"toString","shape":[0],"data_offsets":[0,0]}}'),
    /"toString"/,
  ],
  ['an unknown dtype', encode('{"a":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]}}'), /"F8_E4M3"/],
  [
    'an unknown field',
    encode('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"url":1}}'),
    /unknown field "url"/,
  ],
  ['a tensor that is null', encode('{"a":null}'), /tensor "a" is not described/],
  ['a negative dimension', encode(`{"a":${F32('[-1]', 0, 4)}}`, 4), /tensor "a" has a shape of \[-1\]/],
  ['a fractional dimension', encode(`{"a":${F32('[0.5]', 0, 2)}}`, 2), /shape of \[0.5\]/],
  [
    'a dimension of 2^53',
    encode(`{"a":${F32('[9007199254740992]', 0, 4)}}`, 4),
    /shape of \[9007199254740992\]/,
  ],
  ['a shape as text', encode(`{"a":${F32('"1"', 0, 4)}}`, 4), /shape of "1"/],
  ['a huge product', encode(`{"a":${F32('[4294967296,4294967296]', 0, 4)}}`, 4), /larger than any file/],
  ['a product that wraps to 4', encode(`{"a":${F32('[4294967296,4294967296,1]', 0, 0)}}`), /larger than any/],
  ['a negative offset', encode(`{"a":${F32('[1]', -4, 0)}}`, 4), /data_offsets of \[-4,0\]/],
  ['offsets in reverse', encode(`{"a":${F32('[1]', 4, 0)}}`, 4), /is 4 bytes .* span -4/],
  ['one offset', encode('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}'), /data_offsets of \[0\]/],
  [
    'three offsets',
    encode('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}'),
    /data_offsets of \[0,0,0\]/,
  ],
  ['too many bytes for the shape', encode(`{"a":${F32('[1]', 0, 8)}}`, 8), /"a" is 4 bytes .* span 8/],
  ['past the end', encode(`{"a":${F32('[2]', 0, 8)}}`, 4), /"a" ends at byte 8 .* holds 4/],
  [
    'an overlap',
    encode(`{"a":${F32('[2]', 0, 8)},"b":${F32('[2]', 4, 12)}}`, 12),
    /"b" begins at byte 4, within/,
  ],
  [
    'the same bytes twice',
    encode(`{"a":${F32('[1]', 0, 4)},"b":${F32('[1]', 0, 4)}}`, 4),
    /"b" begins at byte 0, within/,
  ],
  [
    'a hole',
    encode(`{"a":${F32('[1]', 0, 4)},"b":${F32('[1]', 8, 12)}}`, 12),
    /"b" .* leaves a hole after 4/,
  ],
  ['a hole in front', encode(`{"a":${F32('[1]', 4, 8)}}`, 8), /"a" .* leaves a hole after 0/],
  ['bytes left over', encode(`{"a":${F32('[1]', 0, 4)}}`, 5), /end at byte 4 of the data, the file at 5/],
  ['metadata of numbers', encode('{"__metadata__":{"n":1}}'), /__metadata__.n is no string/],
  ['metadata as text', encode('{"__metadata__":"x"}'), /__metadata__ is no JSON object/],
];

for (const [what, bytes, message] of hostile) {
  test(`hostile file: ${what}`, async (t) => {
    const error = await t.throwsAsync(opens(t, bytes), { instanceOf: CheckpointError, message });
    t.regex(error?.message ?? '', /model\.safetensors/, 'the file is named');
    t.true((error?.message.length ?? 0) < 1000);
  });
}

test('every truncation of a file is an error', async (t) => {
  const path = join(await temporaryDirectory(t), 'model.safetensors');
  const whole = Buffer.from(`\x10\x02\0\0\0\0\0\0${REFERENCE}`, 'latin1');
  for (let bytes = 0; bytes < whole.byteLength; bytes++) {
    await writeFile(path, whole.subarray(0, bytes));
    await t.throwsAsync(SafetensorsFile.open(path), { instanceOf: CheckpointError });
  }
});

test('a key named __proto__ is a tensor like any other and changes no prototype', async (t) => {
  const entry = '{"dtype":"U8","shape":[1],"data_offsets":[0,1],"__proto__":{"polluted":1}}';
  await t.throwsAsync(opens(t, encode(`{"__proto__":${entry}}`, 1)), {
    message: /unknown field "__proto__"/,
  });
  const file = await opens(
    t,
    encode(
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"__proto__":"x"}}',
      1,
    ),
  );
  t.deepEqual([...file.entries.keys()], ['__proto__']);
  t.deepEqual([...file.metadata], [['__proto__', 'x']]);
  t.deepEqual(await file.read('__proto__'), Uint8Array.of(0));
  t.false('polluted' in {});
  const path = join(await temporaryDirectory(t), 'x');
  await writeSafetensors(path, copyOf(file));
  await using again = await SafetensorsFile.open(path);
  t.deepEqual([...again.entries.keys()], ['__proto__']);
});

test('what is no file is named', async (t) => {
  const dir = await temporaryDirectory(t);
  await t.throwsAsync(SafetensorsFile.open(dir), { instanceOf: CheckpointError, message: /no regular file/ });
  const missing = SafetensorsFile.open(join(dir, 'none'));
  await t.throwsAsync(missing, { instanceOf: CheckpointError, message: /cannot read .*none: ENOENT/ });
});

test('tensors that cannot be written are refused and the old file stays', async (t) => {
  const path = join(await temporaryDirectory(t), 'x');
  await writeFile(path, 'old');
  const [b] = referenceTensors as [TensorToWrite];
  const cases: [TensorToWrite[], RegExp][] = [
    [[b, { ...b }], /two tensors are named "b"/],
    [[{ ...b, name: '__metadata__' }], /may be named __metadata__/],
    [[{ ...b, shape: [3] }], /"b" has 12 bytes by dtype and shape, got 8/],
    [[{ ...b, shape: [-2] }], /shape of \[-2\]/],
    [[{ ...b, chunks: () => [new Uint8Array(7)] }], /"b" has 8 bytes by dtype and shape, got 7/],
    [[{ ...b, chunks: () => [new Uint8Array(8), new Uint8Array(1)] }], /got 9/],
    [[{ ...b, chunks: () => [] }], /got 0/],
  ];
  for (const [tensors, message] of cases) {
    await t.throwsAsync(writeSafetensors(path, tensors), { instanceOf: CheckpointError, message });
  }
  t.is(await readFile(path, 'utf8'), 'old');
  t.deepEqual(await readdir(join(path, '..')), ['x']);
});

test('a checkpoint is sharded, read back, and replaced without leaving files behind', async (t) => {
  const dir = await temporaryDirectory(t);
  await writeFile(join(dir, 'README.md'), 'mine');
  await using golden = await SafetensorsFile.open(join(GOLDEN, 'gmm-gate-k4', 'model.safetensors'));
  const maxShardBytes = 60_000;
  await saveCheckpoint(dir, copyOf(golden), { maxShardBytes });

  const shards = (await readdir(dir)).filter((name) => name.endsWith('.safetensors')).sort();
  t.true(shards.length > 3);
  t.is(shards[0], `model-00001-of-0000${shards.length}.safetensors`);
  for (const shard of shards) {
    await using file = await SafetensorsFile.open(join(dir, shard));
    const bytes = [...file.entries.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
    t.true(bytes <= maxShardBytes || file.entries.size === 1);
  }
  const index = JSON.parse(await readFile(join(dir, 'model.safetensors.index.json'), 'utf8')) as {
    metadata: { total_size: number };
    weight_map: Record<string, string>;
  };
  t.is(index.metadata.total_size, 4 * 63108);
  t.deepEqual(Object.keys(index.weight_map), [...golden.entries.keys()]);

  await using checkpoint = await ShardedCheckpoint.open(dir);
  t.is(checkpoint.entries.size, golden.entries.size);
  for (const name of golden.entries.keys()) {
    t.deepEqual(await checkpoint.read(name), await golden.read(name));
  }
  await t.throwsAsync(checkpoint.read('none'), { instanceOf: CheckpointError, message: /no tensor "none"/ });

  await saveCheckpoint(dir, copyOf(checkpoint)); // open files outlive their names
  t.deepEqual((await readdir(dir)).sort(), ['README.md', 'model.safetensors']);
  await using single = await ShardedCheckpoint.open(dir);
  t.deepEqual(await single.read('lm_head.weight'), await golden.read('lm_head.weight'));
  for (const value of [0, -1, NaN]) {
    const save = saveCheckpoint(dir, [], { maxShardBytes: value });
    await t.throwsAsync(save, { instanceOf: ValueError, message: /maxShardBytes/ });
  }
  const twice = saveCheckpoint(dir, [...copyOf(golden), ...copyOf(golden)], { maxShardBytes });
  await t.throwsAsync(twice, { instanceOf: CheckpointError, message: /two tensors are named/ });
});

test('an index that does not fit its shards is refused', async (t) => {
  const dir = await temporaryDirectory(t);
  const [b] = referenceTensors as [TensorToWrite];
  await mkdir(join(dir, 'sub'));
  await writeSafetensors(join(dir, 'sub', 'x.safetensors'), [b]);
  await writeSafetensors(join(dir, 'p.safetensors'), [b, { ...b, name: 'c' }]);
  await writeSafetensors(join(dir, 'q.safetensors'), [b]);
  await writeSafetensors(join(dir, 'r.safetensors'), [{ ...b, name: 'd' }]);
  const cases: [index: string, message: RegExp][] = [
    ['{"weight_map":{"b":"../p.safetensors"}}', /"b" is said to be in "..\/p.safetensors"/],
    ['{"weight_map":{"b":"sub/x.safetensors"}}', /expected the name of a .safetensors file/],
    ['{"weight_map":{"b":"sub\\\\x.safetensors"}}', /expected the name/],
    ['{"weight_map":{"b":"/etc/passwd"}}', /expected the name/],
    ['{"weight_map":{"b":"p.safetensors\\u0000.safetensors"}}', /expected the name/],
    ['{"weight_map":{"b":1}}', /is said to be in 1/],
    ['{"weight_map":[]}', /weight_map is no JSON object/],
    ['{}', /weight_map is no JSON object/],
    ['[]', /no JSON object/],
    ['{', /not valid JSON/],
    ['{"weight_map":{"b":"p.safetensors","b":"q.safetensors"}}', /"b" occurs again/],
    ['{"weight_map":{"b":"none.safetensors"}}', /cannot read .*none.safetensors: ENOENT/],
    ['{"weight_map":{"b":"p.safetensors"}}', /tensor "c" of .*p.safetensors is not listed/],
    [
      '{"weight_map":{"b":"p.safetensors","c":"p.safetensors","e":"r.safetensors"}}',
      /"e" is not in r.safetensors/,
    ],
    [
      '{"weight_map":{"b":"p.safetensors","c":"p.safetensors","d":"q.safetensors"}}',
      /"b" is in .*p\..* and in .*q\./,
    ],
  ];
  for (const [index, message] of cases) {
    await writeFile(join(dir, 'model.safetensors.index.json'), index);
    await t.throwsAsync(ShardedCheckpoint.open(dir), { instanceOf: CheckpointError, message });
  }
  const good = '{"weight_map":{"b":"p.safetensors","c":"p.safetensors","d":"r.safetensors"}}';
  await writeFile(join(dir, 'model.safetensors.index.json'), good);
  await using checkpoint = await ShardedCheckpoint.open(dir);
  t.deepEqual([...checkpoint.entries.keys()].sort(), ['b', 'c', 'd']);
});

test('a directory without weights says what is there instead', async (t) => {
  const dir = await temporaryDirectory(t);
  const expected = {
    instanceOf: CheckpointError,
    message: /neither model.safetensors nor .*index.json is there$/,
  };
  await t.throwsAsync(ShardedCheckpoint.open(dir), expected);
  await writeFile(join(dir, 'pytorch_model.bin'), '');
  await t.throwsAsync(ShardedCheckpoint.open(dir), {
    message: /pytorch_model.bin cannot be read: convert it/,
  });
  await t.throwsAsync(ShardedCheckpoint.open(join(dir, 'none')), {
    instanceOf: CheckpointError,
    message: /ENOENT/,
  });
});

test('the names of weights are told from others', (t) => {
  t.true(
    ['model.safetensors', 'model.safetensors.index.json', 'model-00001-of-00002.safetensors'].every(
      isWeightsFile,
    ),
  );
  t.false(['config.json', 'optimizer.safetensors', 'model-best.safetensors'].some(isWeightsFile));
});

test('a full disk while saving leaves the old checkpoint, whole and loadable', async (t) => {
  const disk = await mountTmpfs(t, '1m');
  if (disk === undefined) return;
  await using golden = await SafetensorsFile.open(join(GOLDEN, 'mlp-gate', 'model.safetensors'));
  await saveCheckpoint(disk, copyOf(golden), { maxShardBytes: 100_000 });
  const before = await Promise.all((await readdir(disk)).sort().map((name) => readFile(join(disk, name))));
  await writeFileAtomic(join(disk, 'filler'), new Uint8Array(500_000));
  for (const maxShardBytes of [100_000, 1e9]) {
    const save = saveCheckpoint(disk, copyOf(golden), { maxShardBytes });
    await t.throwsAsync(save, { instanceOf: CheckpointError, message: /cannot write .*: ENOSPC/ });
  }
  const names = (await readdir(disk)).filter((name) => name !== 'filler').sort();
  t.deepEqual(await Promise.all(names.map((name) => readFile(join(disk, name)))), before);
  await using checkpoint = await ShardedCheckpoint.open(disk);
  t.deepEqual(await checkpoint.read('lm_head.weight'), await golden.read('lm_head.weight'));
});

// Writes the GGUF files that llama.cpp reads (format: ggml's docs/gguf.md, version 3), with random weights.
import { open, type FileHandle } from 'node:fs/promises';
import { createRandom } from '../../lib/data/random.js';

/** Values of ggml's enum ggml_type, with the bytes of a block and the elements in it. */
const types = {
  f32: { id: 0, bytes: 4, elements: 1 },
  q8_0: { id: 8, bytes: 34, elements: 32 },
  bf16: { id: 30, bytes: 2, elements: 1 },
} as const;
export type GgufType = keyof typeof types;

export interface GgufTensor {
  name: string;
  /** Fastest first, as ggml has it: a matrix [in, out] lies row after row of length `in`. */
  shape: readonly number[];
  type: GgufType;
}

/** A string, an unsigned 32-bit integer, a float, or an array of strings or integers. */
export type GgufValue = string | { u32: number } | { f32: number } | readonly string[] | Int32Array;

const ALIGNMENT = 32;

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** A value behind its type: GGUF_TYPE_UINT32 = 4, INT32 = 5, FLOAT32 = 6, STRING = 8, ARRAY = 9. */
function typed(value: GgufValue): Buffer {
  if (typeof value === 'string') return Buffer.concat([u32(8), text(value)]);
  if (value instanceof Int32Array) {
    return Buffer.concat([u32(9), u32(5), u64(value.length), new Uint8Array(value.buffer)]);
  }
  if (Array.isArray(value)) return Buffer.concat([u32(9), u32(8), u64(value.length), ...value.map(text)]);
  if ('u32' in value) return Buffer.concat([u32(4), u32(value.u32)]);
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE((value as { f32: number }).f32);
  return Buffer.concat([u32(6), bytes]);
}

export function ggufBytes({ shape, type }: GgufTensor): number {
  const { bytes, elements } = types[type];
  return (shape.reduce((a, b) => a * b, 1) / elements) * bytes;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** About a million weights in [-0.04, 0.04); ones for f32, which only norms have here. */
function randomBlocks(type: GgufType): Buffer {
  const random = createRandom(1);
  const count = 1 << 20;
  if (type === 'f32') return Buffer.from(new Float32Array(count).fill(1).buffer);
  if (type === 'bf16') {
    const values = Float32Array.from({ length: count }, () => 0.08 * random.next() - 0.04);
    const bits = new Uint32Array(values.buffer);
    return Buffer.from(Uint16Array.from(bits, (word) => word >>> 16).buffer);
  }
  const { bytes, elements } = types.q8_0;
  const blocks = Buffer.alloc((count / elements) * bytes);
  for (let at = 0; at < blocks.length; at += bytes) {
    blocks.writeUInt16LE(0x0d1f, at); // the f16 nearest to 0.04 / 128
    for (let i = 2; i < bytes; i++) blocks.writeInt8(Math.floor(256 * random.next()) - 128, at + i);
  }
  return blocks;
}

/** Writes `bytes` of the blocks, starting elsewhere in them each time, so that no two tensors are equal. */
async function writeRandom(
  file: FileHandle,
  blocks: Buffer,
  bytes: number,
  tensor: number,
  unit: number,
): Promise<void> {
  const units = blocks.length / unit;
  let at = unit * ((tensor * 7919) % units);
  for (let left = bytes; left > 0;) {
    const part = Math.min(left, blocks.length - at);
    await file.writev([blocks.subarray(at, at + part)]);
    left -= part;
    at = 0;
  }
  const padding = padded(bytes) - bytes;
  if (padding > 0) await file.write(Buffer.alloc(padding));
}

/** Writes a file of random weights. */
export async function writeRandomGguf(
  path: string,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): Promise<void> {
  const entries = Object.entries(metadata);
  let offset = 0;
  const infos = tensors.map((tensor) => {
    const { name, shape, type } = tensor;
    const info = [text(name), u32(shape.length), ...shape.map(u64), u32(types[type].id), u64(offset)];
    offset += padded(ggufBytes(tensor));
    return Buffer.concat(info);
  });
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(entries.length),
    ...entries.flatMap(([key, value]) => [text(key), typed(value)]),
    ...infos,
  ]);
  const blocks = { f32: randomBlocks('f32'), bf16: randomBlocks('bf16'), q8_0: randomBlocks('q8_0') };
  const file = await open(path, 'w');
  try {
    await file.write(Buffer.concat([head, Buffer.alloc(padded(head.length) - head.length)]));
    for (const [i, tensor] of tensors.entries()) {
      const { type } = tensor;
      await writeRandom(file, blocks[type], ggufBytes(tensor), i, types[type].bytes);
    }
  } finally {
    await file.close();
  }
}

import { CheckpointError } from '../errors.js';
import { isJsonObject, parseStrictJson, type JsonObject, type JsonValue } from './strict-json.js';

/** Bytes per element of the dtypes read and written here, in the order in which the format's own library sorts. */
export const SAFETENSORS_ITEM_BYTES = {
  I64: 8,
  F64: 8,
  F32: 4,
  I32: 4,
  BF16: 2,
  F16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type SafetensorsDtype = keyof typeof SAFETENSORS_ITEM_BYTES;

export const SAFETENSORS_DTYPES = Object.keys(SAFETENSORS_ITEM_BYTES) as readonly SafetensorsDtype[];

/** Where a tensor lies: bytes `begin` (inclusive) to `end` (exclusive) of the data that follow the header. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** A tensor to be written, without its data. */
export interface TensorDescription {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** The length of the header comes first, as an unsigned 64-bit integer. */
export const LENGTH_BYTES = 8;
/** The format's own limit on the header. */
export const MAX_HEADER_BYTES = 100_000_000;

const METADATA = '__metadata__';
/** The data begin at a multiple of this, so that a mapped file is aligned. */
const HEADER_ALIGNMENT = 8;

/**
 * Parses and checks a header.
 *
 * @param bytes the header alone, without the length before it.
 * @param dataBytes how many bytes follow the header in the file.
 * @throws {CheckpointError} that names `path`, the tensor and what is wrong: not JSON, a name that occurs twice, an
 *   unknown dtype, an impossible shape, tensors that overlap, leave holes, or don't fill the file exactly.
 */
export function parseHeader(bytes: Uint8Array, dataBytes: number, path: string): SafetensorsHeader {
  const header = parseObject(bytes, path);
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(header)) {
    if (name !== METADATA) entries.set(name, parseEntry(name, value, path));
  }
  checkLayout(entries, dataBytes, path);
  return { entries, metadata: parseMetadata(header[METADATA], path) };
}

/**
 * Lays tensors out as the format's own library does (by dtype, wide ones first, then by name), which keeps each
 * aligned to its items and makes the file independent of the order of the tensors.
 *
 * @returns the tensors in the order of their data, and the bytes before the data.
 * @throws {CheckpointError} for a name that is taken or reserved and a shape that is impossible.
 */
export function layOut<T extends TensorDescription>(
  tensors: Iterable<T>,
  metadata: Readonly<Record<string, string>>,
  path: string,
): { ordered: readonly T[]; head: Uint8Array } {
  const ordered = [...tensors].sort(compareTensors);
  const fields = Object.keys(metadata).length > 0 ? [`"${METADATA}":${JSON.stringify(metadata)}`] : [];
  const names = new Set<string>();
  let begin = 0;
  for (const { name, dtype, shape } of ordered) {
    if (name === METADATA)
      throw new CheckpointError(`cannot write ${path}: no tensor may be named ${METADATA}`);
    if (names.has(name))
      throw new CheckpointError(`cannot write ${path}: two tensors are named ${quote(name)}`);
    names.add(name);
    const end = begin + tensorBytes(name, dtype, shape, path);
    fields.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    );
    begin = end;
  }
  return { ordered, head: encodeHead(`{${fields.join(',')}}`, path) };
}

/** Bytes of a tensor's data. @throws {CheckpointError} when the shape or the size is impossible. */
export function tensorBytes(
  name: string,
  dtype: SafetensorsDtype,
  shape: readonly number[],
  path: string,
): number {
  let bytes: number = SAFETENSORS_ITEM_BYTES[dtype];
  for (const size of shape) {
    if (!isSize(size)) fail(path, name, `has a shape of ${show(shape)}, expected non-negative integers`);
    bytes *= size;
  }
  // A dimension of 0 empties the tensor, however large the product of the others.
  if (shape.includes(0)) return 0;
  if (!Number.isSafeInteger(bytes)) fail(path, name, `has a shape of ${show(shape)}, larger than any file`);
  return bytes;
}

function parseObject(bytes: Uint8Array, path: string): JsonObject {
  let value: JsonValue;
  try {
    value = parseStrictJson(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    throw new CheckpointError(`${path}: damaged header: ${(error as Error).message}`, { cause: error });
  }
  if (!isJsonObject(value)) throw new CheckpointError(`${path}: damaged header: no JSON object`);
  return value;
}

function parseMetadata(value: JsonValue | undefined, path: string): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (!isJsonObject(value)) throw new CheckpointError(`${path}: ${METADATA} is no JSON object`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw new CheckpointError(`${path}: ${METADATA}.${key} is no string`);
    metadata.set(key, text);
  }
  return metadata;
}

function parseEntry(name: string, value: JsonValue, path: string): SafetensorsEntry {
  if (!isJsonObject(value)) return fail(path, name, 'is not described by a JSON object');
  const { dtype, shape, data_offsets: offsets, ...rest } = value;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) fail(path, name, `has an unknown field ${quote(unknown)}`);
  if (!isDtype(dtype)) {
    return fail(path, name, `has dtype ${show(dtype)}, expected one of ${SAFETENSORS_DTYPES.join(', ')}`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    return fail(path, name, `has a shape of ${show(shape)}, expected non-negative integers`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    return fail(path, name, `has data_offsets of ${show(offsets)}, expected two non-negative integers`);
  }
  const [begin, end] = offsets as [number, number];
  const bytes = tensorBytes(name, dtype, shape, path);
  if (end - begin !== bytes) {
    fail(path, name, `is ${bytes} bytes by dtype and shape, but its data_offsets span ${end - begin}`);
  }
  return { dtype, shape, begin, end };
}

/** The tensors must cover the data exactly: no overlap, no hole, nothing missing or left at the end. */
function checkLayout(entries: ReadonlyMap<string, SafetensorsEntry>, dataBytes: number, path: string): void {
  const byPosition = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const [name, { begin, end }] of byPosition) {
    if (end > dataBytes) fail(path, name, `ends at byte ${end} of the data, but the file holds ${dataBytes}`);
    if (begin < position)
      fail(path, name, `begins at byte ${begin}, within the tensor that ends at ${position}`);
    if (begin > position) fail(path, name, `begins at byte ${begin}, which leaves a hole after ${position}`);
    position = end;
  }
  if (position !== dataBytes) {
    throw new CheckpointError(
      `${path}: the tensors end at byte ${position} of the data, the file at ${dataBytes}`,
    );
  }
}

function encodeHead(json: string, path: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const length = Math.ceil(text.byteLength / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  if (length > MAX_HEADER_BYTES) {
    throw new CheckpointError(
      `cannot write ${path}: a header of ${length} bytes, at most ${MAX_HEADER_BYTES} allowed`,
    );
  }
  const head = new Uint8Array(LENGTH_BYTES + length).fill(0x20, LENGTH_BYTES);
  new DataView(head.buffer).setBigUint64(0, BigInt(length), true);
  head.set(text, LENGTH_BYTES);
  return head;
}

function compareTensors(a: TensorDescription, b: TensorDescription): number {
  return (
    SAFETENSORS_DTYPES.indexOf(a.dtype) - SAFETENSORS_DTYPES.indexOf(b.dtype) || (a.name < b.name ? -1 : 1)
  );
}

function isDtype(value: JsonValue | undefined): value is SafetensorsDtype {
  return typeof value === 'string' && Object.hasOwn(SAFETENSORS_ITEM_BYTES, value);
}

function isSize(value: JsonValue): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function quote(name: string): string {
  return show(name);
}

/** A value from the file in a message, cut off where it would fill the screen. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}

function fail(path: string, name: string, problem: string): never {
  throw new CheckpointError(`${path}: tensor ${quote(name)} ${problem}`);
}

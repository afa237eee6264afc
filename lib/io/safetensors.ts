import { open, stat, type FileHandle } from 'node:fs/promises';
import { CheckpointError, ShapeError } from '../errors.js';
import { naming, writeFileAtomic, type FileContent } from './atomic.js';
import {
  LENGTH_BYTES,
  MAX_HEADER_BYTES,
  layOut,
  parseHeader,
  tensorBytes,
  type SafetensorsEntry,
  type SafetensorsHeader,
  type TensorDescription,
} from './safetensors-header.js';

export type { SafetensorsDtype, SafetensorsEntry, TensorDescription } from './safetensors-header.js';

/** What tensors are loaded from: one file or the shards of a checkpoint. */
export interface TensorSource {
  /** Name to dtype, shape and place. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /**
   * Fills `target` with a tensor's bytes, from `offsetBytes` of the tensor on.
   *
   * @throws {CheckpointError} when there is no such tensor, the file cannot be read or was cut off since it was opened.
   * @throws {ShapeError} when `target` reaches past the end of the tensor.
   */
  readInto(name: string, target: Uint8Array, offsetBytes?: number): Promise<void>;
  /** A tensor's bytes (little-endian, row by row) in a buffer of their own, aligned for any typed array. */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A tensor to be written: `chunks` is called when its turn comes and gives `byteLength` bytes in all. */
export interface TensorToWrite extends TensorDescription {
  readonly byteLength: number;
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** What PyTorch's side of the ecosystem expects to find. */
const DEFAULT_METADATA = { format: 'pt' } as const;

/** Linux reads at most 2 GiB a call. */
const MAX_READ_BYTES = 64 * 1024 * 1024;

/**
 * An open .safetensors file. Nothing but the header is held in memory: tensors are read by position, so that the file
 * may be larger than any buffer.
 */
export class SafetensorsFile implements TensorSource {
  readonly path: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #dataStart: number;
  #handle: FileHandle | undefined;

  private constructor(path: string, handle: FileHandle, dataStart: number, header: SafetensorsHeader) {
    this.path = path;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.#handle = handle;
    this.#dataStart = dataStart;
  }

  /**
   * Opens a file and checks its header and size.
   *
   * @throws {CheckpointError} that names the file, and the tensor where one is at fault.
   */
  static async open(path: string): Promise<SafetensorsFile> {
    const handle = await naming(path, () => openFile(path), 'read');
    try {
      const { size } = await naming(path, () => handle.stat(), 'read');
      const headerBytes = await readHeaderLength(handle, size, path);
      const bytes = new Uint8Array(headerBytes);
      await readFully(handle, bytes, LENGTH_BYTES, path);
      const dataStart = LENGTH_BYTES + headerBytes;
      return new SafetensorsFile(path, handle, dataStart, parseHeader(bytes, size - dataStart, path));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async readInto(name: string, target: Uint8Array, offsetBytes = 0): Promise<void> {
    const { begin, end } = this.#entry(name);
    const bytes = end - begin;
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes + target.byteLength > bytes) {
      throw new ShapeError(
        `readInto: tensor ${JSON.stringify(name)} of ${this.path} has ${bytes} bytes, ` +
          `asked for ${target.byteLength} from ${offsetBytes} on`,
      );
    }
    if (this.#handle === undefined) throw new CheckpointError(`cannot read ${this.path}: it was closed`);
    await readFully(this.#handle, target, this.#dataStart + begin + offsetBytes, this.path);
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { begin, end } = this.#entry(name);
    const target = allocate(name, end - begin);
    await this.readInto(name, target);
    return target;
  }

  /** Closes the file; closing twice is harmless. */
  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      throw new CheckpointError(`${this.path}: there is no tensor ${JSON.stringify(name)}`);
    }
    return entry;
  }
}

/**
 * Writes tensors to a file, atomically, and never holds more than one chunk. The bytes are those that the format's
 * own library writes for the same tensors.
 *
 * @throws {CheckpointError} for names that are taken, sizes that don't fit, and failures of the file system; an old
 *   file is then unchanged.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFileAtomic(path, safetensorsContent(path, tensors, metadata));
}

/** The content of `writeSafetensors` for `writeFilesAtomic`. Names and sizes are checked at once. */
export function safetensorsContent(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = DEFAULT_METADATA,
): FileContent {
  const { ordered, head } = layOut(tensors, metadata, path);
  for (const { name, dtype, shape, byteLength } of ordered) {
    const expected = tensorBytes(name, dtype, shape, path);
    if (byteLength !== expected) throw wrongSize(path, name, byteLength, expected);
  }
  return async (write) => {
    await write(head);
    for (const { name, byteLength, chunks } of ordered) {
      let written = 0;
      for await (const chunk of chunks()) {
        written += chunk.byteLength;
        if (written > byteLength) break;
        await write(chunk);
      }
      if (written !== byteLength) throw wrongSize(path, name, written, byteLength);
    }
  };
}

function wrongSize(path: string, name: string, given: number, expected: number): CheckpointError {
  return new CheckpointError(
    `cannot write ${path}: tensor ${JSON.stringify(name)} has ${expected} bytes by dtype and shape, got ${given}`,
  );
}

async function openFile(path: string): Promise<FileHandle> {
  // Opening a pipe would wait for a writer, so look first.
  if (!(await stat(path)).isFile()) throw new CheckpointError(`cannot read ${path}: it is no regular file`);
  return open(path, 'r');
}

async function readHeaderLength(handle: FileHandle, fileBytes: number, path: string): Promise<number> {
  if (fileBytes < LENGTH_BYTES) {
    throw new CheckpointError(`${path}: ${fileBytes} bytes are too few for a safetensors file`);
  }
  const bytes = new Uint8Array(LENGTH_BYTES);
  await readFully(handle, bytes, 0, path);
  const length = new DataView(bytes.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new CheckpointError(`${path}: a header of ${length} bytes, at most ${MAX_HEADER_BYTES} allowed`);
  }
  if (length > BigInt(fileBytes - LENGTH_BYTES)) {
    throw new CheckpointError(`${path}: a header of ${length} bytes in a file of ${fileBytes}`);
  }
  return Number(length);
}

async function readFully(
  handle: FileHandle,
  target: Uint8Array,
  position: number,
  path: string,
): Promise<void> {
  for (let done = 0; done < target.byteLength;) {
    const length = Math.min(MAX_READ_BYTES, target.byteLength - done);
    const { bytesRead } = await naming(
      path,
      () => handle.read(target, done, length, position + done),
      'read',
    );
    if (bytesRead === 0) {
      throw new CheckpointError(`${path}: ends at byte ${position + done}, it was cut off while being read`);
    }
    done += bytesRead;
  }
}

function allocate(name: string, bytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new CheckpointError(
      `tensor ${JSON.stringify(name)}: cannot allocate ${bytes} bytes in one piece; readInto takes it in parts`,
      { cause: error },
    );
  }
}

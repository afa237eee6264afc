import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { endianness } from 'node:os';
import path from 'node:path';
import { DataError } from '../errors.js';

/** How a token id is stored: unsigned, little endian. */
export type TokenDType = 'u16' | 'u32';

export interface ShardInfo {
  readonly tokens: number;
  readonly sha256: string;
}

/** What is known of the files of one split: `NAME-00000.bin` ... with token ids, `NAME-documents.bin` with offsets. */
export interface TokenFiles {
  readonly tokens: number;
  readonly documents: number;
  /** Of `NAME-documents.bin`: the offset of each document's first token, float64, little endian. */
  readonly documentsSha256: string;
  /** All hold the same number of tokens but for the last, which may hold fewer. */
  readonly shards: readonly ShardInfo[];
}

const WIDTH = { u16: 2, u32: 4 } as const;
const BUFFER_TOKENS = 1 << 16;
const IS_BIG_ENDIAN = endianness() === 'BE';

const shardName = (name: string, index: number) => `${name}-${String(index).padStart(5, '0')}.bin`;
const documentsName = (name: string) => `${name}-documents.bin`;

/** The names that a writer gives its files. */
export function isTokenFile(file: string, names: readonly string[]): boolean {
  return names.some(
    (name) => file.startsWith(`${name}-`) && /^(\d{5,}|documents)\.bin$/.test(file.slice(name.length + 1)),
  );
}

/** The memory of an array as little-endian bytes; on big-endian machines swapped in place. */
function littleEndianBytes(array: Uint16Array | Uint32Array | Float64Array): Buffer {
  const bytes = Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  if (!IS_BIG_ENDIAN) return bytes;
  if (array.BYTES_PER_ELEMENT === 2) return bytes.swap16();
  return array.BYTES_PER_ELEMENT === 4 ? bytes.swap32() : bytes.swap64();
}

/** Writes the token ids of one split, document by document. */
export class TokenWriter {
  readonly #dir: string;
  readonly #name: string;
  readonly #shardTokens: number;
  readonly #buffer: Uint16Array | Uint32Array;
  readonly #offsets: number[] = [];
  readonly #shards: ShardInfo[] = [];
  #filled = 0;
  #tokens = 0;
  #shard: { file: FileHandle; hash: Hash; tokens: number } | undefined;

  constructor(dir: string, name: string, dtype: TokenDType, shardTokens: number) {
    this.#dir = dir;
    this.#name = name;
    this.#shardTokens = shardTokens;
    const size = Math.min(BUFFER_TOKENS, shardTokens);
    this.#buffer = dtype === 'u16' ? new Uint16Array(size) : new Uint32Array(size);
  }

  get tokens(): number {
    return this.#tokens;
  }

  async append(ids: readonly number[]): Promise<void> {
    this.#offsets.push(this.#tokens);
    this.#tokens += ids.length;
    for (const id of ids) {
      this.#buffer[this.#filled++] = id;
      if (this.#filled === this.#room()) await this.#flush();
    }
  }

  /** Completes the files. They are not flushed to the disk. */
  async finish(): Promise<TokenFiles> {
    await this.#flush();
    await this.#endShard();
    const offsets = littleEndianBytes(Float64Array.from(this.#offsets));
    const file = await open(path.join(this.#dir, documentsName(this.#name)), 'wx');
    await file.writeFile(offsets).finally(() => file.close());
    return {
      tokens: this.#tokens,
      documents: this.#offsets.length,
      documentsSha256: createHash('sha256').update(offsets).digest('hex'),
      shards: this.#shards,
    };
  }

  /** Closes what is open, after a failure. */
  async close(): Promise<void> {
    await this.#shard?.file.close();
    this.#shard = undefined;
  }

  #room(): number {
    return Math.min(this.#buffer.length, this.#shardTokens - (this.#shard?.tokens ?? 0));
  }

  async #flush(): Promise<void> {
    if (this.#filled === 0) return;
    this.#shard ??= {
      file: await open(path.join(this.#dir, shardName(this.#name, this.#shards.length)), 'wx'),
      hash: createHash('sha256'),
      tokens: 0,
    };
    const bytes = littleEndianBytes(this.#buffer.subarray(0, this.#filled));
    this.#shard.hash.update(bytes);
    await this.#shard.file.writeFile(bytes);
    this.#shard.tokens += this.#filled;
    this.#filled = 0;
    if (this.#shard.tokens === this.#shardTokens) await this.#endShard();
  }

  async #endShard(): Promise<void> {
    if (this.#shard === undefined) return;
    this.#shards.push({ tokens: this.#shard.tokens, sha256: this.#shard.hash.digest('hex') });
    await this.close();
  }
}

/** Reads ranges of the token ids of one split. Holds no file open and in memory only the documents' offsets. */
export class TokenReader {
  /** Tokens of the split, EOS included. */
  readonly tokenCount: number;
  /** Documents of the split. */
  readonly documentCount: number;
  /** The offset of each document's first token, ascending; a document ends with EOS. */
  readonly documentOffsets: Float64Array;

  readonly #dir: string;
  readonly #name: string;
  readonly #dtype: TokenDType;
  readonly #vocabSize: number;
  readonly #files: TokenFiles;

  private constructor(
    dir: string,
    name: string,
    dtype: TokenDType,
    vocabSize: number,
    files: TokenFiles,
    documentOffsets: Float64Array,
  ) {
    this.#dir = dir;
    this.#name = name;
    this.#dtype = dtype;
    this.#vocabSize = vocabSize;
    this.#files = files;
    this.tokenCount = files.tokens;
    this.documentCount = files.documents;
    this.documentOffsets = documentOffsets;
  }

  /** @throws DataError when a file is missing or has another size, or the documents' offsets are damaged. */
  static async open(dir: string, name: string, dtype: TokenDType, vocabSize: number, files: TokenFiles) {
    for (const [index, shard] of files.shards.entries()) {
      await checkSize(path.join(dir, shardName(name, index)), shard.tokens * WIDTH[dtype]);
    }
    const file = path.join(dir, documentsName(name));
    await checkSize(file, files.documents * Float64Array.BYTES_PER_ELEMENT);
    const bytes = await readFile(file);
    checkHash(file, files.documentsSha256, createHash('sha256').update(bytes));
    if (IS_BIG_ENDIAN) bytes.swap64();
    const offsets = new Float64Array(files.documents);
    new Uint8Array(offsets.buffer).set(bytes);
    return new TokenReader(dir, name, dtype, vocabSize, files, offsets);
  }

  /**
   * The ids at positions `start` to `start + length - 1` of the documents, joined in order.
   * @throws RangeError when that is outside the split.
   * @throws DataError when a shard is damaged in a way that shows here.
   */
  async read(start: number, length: number): Promise<Int32Array> {
    if (!(start >= 0 && length >= 0 && start + length <= this.tokenCount)) {
      throw new RangeError(
        `tokens ${start} to ${start + length} are outside ${this.#name} (${this.tokenCount} tokens)`,
      );
    }
    const ids = new Int32Array(length);
    const shardTokens = this.#files.shards[0]?.tokens ?? 1;
    for (let done = 0; done < length;) {
      const shard = Math.floor((start + done) / shardTokens);
      const from = start + done - shard * shardTokens;
      const count = Math.min(length - done, shardTokens - from);
      ids.set(await this.#readShard(shard, from, count), done);
      done += count;
    }
    return ids;
  }

  /** Reads every shard. @throws DataError when the content of one is not what was written. */
  async verify(): Promise<void> {
    for (const [index, { sha256 }] of this.#files.shards.entries()) {
      const file = path.join(this.#dir, shardName(this.#name, index));
      checkHash(file, sha256, await hashFile(file));
    }
  }

  async #readShard(shard: number, from: number, count: number): Promise<Uint16Array | Uint32Array> {
    const shardPath = path.join(this.#dir, shardName(this.#name, shard));
    const ids = this.#dtype === 'u16' ? new Uint16Array(count) : new Uint32Array(count);
    const bytes = new Uint8Array(ids.buffer);
    const file = await open(shardPath).catch((cause: unknown) => {
      throw new DataError(`${shardPath}: cannot be read: ${(cause as Error).message}`, { cause });
    });
    try {
      for (let done = 0; done < bytes.length;) {
        const position = from * WIDTH[this.#dtype] + done;
        const { bytesRead } = await file.read(bytes, done, bytes.length - done, position);
        if (bytesRead === 0)
          throw new DataError(`${shardPath}: ends before token ${from + count}; the data set is damaged`);
        done += bytesRead;
      }
    } finally {
      await file.close();
    }
    littleEndianBytes(ids);
    const bad = ids.findIndex((id) => id >= this.#vocabSize);
    if (bad >= 0) {
      throw new DataError(
        `${shardPath}: id ${ids[bad]} at token ${from + bad} is outside the vocabulary; it is damaged`,
      );
    }
    return ids;
  }
}

/** The SHA-256 of a file, read as a stream. @throws DataError when it cannot be read. */
export async function hashFile(file: string): Promise<Hash> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  } catch (cause) {
    throw new DataError(`${file}: cannot be read: ${(cause as Error).message}`, { cause });
  }
  return hash;
}

async function checkSize(file: string, expected: number): Promise<void> {
  const size = (await stat(file).catch(() => undefined))?.size;
  if (size === undefined) throw new DataError(`${file} is missing; the data set is damaged`);
  if (size !== expected)
    throw new DataError(`${file} has ${size} bytes, expected ${expected}; the data set is damaged`);
}

function checkHash(file: string, expected: string, hash: Hash): void {
  if (hash.digest('hex') !== expected)
    throw new DataError(`${file} is not what was written; the data set is damaged`);
}

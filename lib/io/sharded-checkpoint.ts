import { readFile, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CheckpointError, ValueError } from '../errors.js';
import { naming, writeFilesAtomic, type FileToWrite } from './atomic.js';
import {
  SafetensorsFile,
  safetensorsContent,
  type SafetensorsEntry,
  type TensorSource,
  type TensorToWrite,
} from './safetensors.js';
import { isJsonObject, parseStrictJson, type JsonObject } from './strict-json.js';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const SHARD = /^model-[0-9]{5,}-of-[0-9]{5,}\.safetensors$/;

/** As transformers splits. */
const DEFAULT_SHARD_BYTES = 5e9;

/** Whether a name in a checkpoint directory belongs to its weights: the file, the index or a shard. */
export function isWeightsFile(name: string): boolean {
  return name === SINGLE || name === INDEX || SHARD.test(name);
}

/**
 * The weights in a Hugging Face directory, open for reading: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` lists. Nothing but headers is held in memory.
 */
export class ShardedCheckpoint implements TensorSource {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly #files: readonly SafetensorsFile[];
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;
  readonly #dir: string;

  private constructor(dir: string, files: readonly SafetensorsFile[]) {
    const fileOf = new Map<string, SafetensorsFile>();
    const entries = new Map<string, SafetensorsEntry>();
    for (const file of files) {
      for (const [name, entry] of file.entries) {
        const other = fileOf.get(name);
        if (other !== undefined) {
          throw new CheckpointError(`tensor ${JSON.stringify(name)} is in ${other.path} and in ${file.path}`);
        }
        fileOf.set(name, file);
        entries.set(name, entry);
      }
    }
    this.#dir = dir;
    this.#files = files;
    this.#fileOf = fileOf;
    this.entries = entries;
  }

  /**
   * Opens the weights in `dir` and checks all headers, and the index against them.
   *
   * @throws {CheckpointError} when there are no weights, a file is damaged, the index names a file outside `dir` or a
   *   tensor that is not where it says, or shards hold tensors twice or beyond the index.
   */
  static async open(dir: string): Promise<ShardedCheckpoint> {
    const names = await naming(dir, () => readdir(dir), 'read');
    if (names.includes(SINGLE)) return openFiles(dir, [SINGLE], (files) => new ShardedCheckpoint(dir, files));
    if (!names.includes(INDEX)) throw new CheckpointError(missing(dir, names));
    const index = join(dir, INDEX);
    const weightMap = await readWeightMap(index);
    return openFiles(dir, new Set(weightMap.values()), (files) => {
      const checkpoint = new ShardedCheckpoint(dir, files);
      checkpoint.#checkIndex(weightMap, index);
      return checkpoint;
    });
  }

  async readInto(name: string, target: Uint8Array, offsetBytes = 0): Promise<void> {
    await this.#file(name).readInto(name, target, offsetBytes);
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.#file(name).read(name);
  }

  /** Closes all files; closing twice is harmless. */
  async close(): Promise<void> {
    await closeAll(this.#files);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file === undefined)
      throw new CheckpointError(`${this.#dir}: there is no tensor ${JSON.stringify(name)}`);
    return file;
  }

  #checkIndex(weightMap: ReadonlyMap<string, string>, index: string): void {
    for (const [name, shard] of weightMap) {
      if (this.#fileOf.get(name)?.path !== join(this.#dir, shard)) {
        throw new CheckpointError(`${index}: tensor ${JSON.stringify(name)} is not in ${shard}`);
      }
    }
    for (const [name, file] of this.#fileOf) {
      if (!weightMap.has(name)) {
        throw new CheckpointError(`${index}: tensor ${JSON.stringify(name)} of ${file.path} is not listed`);
      }
    }
  }
}

export interface SaveOptions {
  /** The most bytes of tensors in one file; a tensor that is larger gets a file for itself. Default 5 GB. */
  readonly maxShardBytes?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a model's weights into `dir`, which exists, and removes the files of weights that were there before and are
 * not overwritten. Until all new files are written, those before stay as they are.
 *
 * @throws {CheckpointError} for names that are taken, sizes that don't fit, and failures of the file system.
 */
export async function saveCheckpoint(
  dir: string,
  tensors: Iterable<TensorToWrite>,
  options?: SaveOptions,
): Promise<void> {
  await writeCheckpoint(dir, checkpointFiles(dir, tensors, options));
}

/**
 * Writes the files of a checkpoint into `dir`, those of `checkpointFiles` among them, and removes the files of weights
 * that were there before and are not overwritten.
 *
 * @throws {CheckpointError} for failures of the file system.
 */
export async function writeCheckpoint(dir: string, files: readonly FileToWrite[]): Promise<void> {
  await writeFilesAtomic(files);
  const written = new Set(files.map(({ path }) => basename(path)));
  const names = await naming(dir, () => readdir(dir), 'read');
  for (const name of names) {
    if (isWeightsFile(name) && !written.has(name))
      await naming(join(dir, name), () => rm(join(dir, name)), 'remove');
  }
}

/**
 * The files that hold a model's weights: `model.safetensors`, or, when they are larger than `maxShardBytes`, shards in
 * the order of the tensors and at last their index. Nothing is written: hand them to `writeFilesAtomic`.
 *
 * @throws {CheckpointError} for names that are taken and sizes that don't fit.
 */
export function checkpointFiles(
  dir: string,
  tensors: Iterable<TensorToWrite>,
  options: SaveOptions = {},
): FileToWrite[] {
  const { maxShardBytes = DEFAULT_SHARD_BYTES, metadata } = options;
  if (!(maxShardBytes > 0))
    throw new ValueError(`maxShardBytes: expected a positive number, got ${maxShardBytes}`);
  const shards = split(tensors, maxShardBytes);
  const named = shards.map((shard, n) => {
    const name = shards.length === 1 ? SINGLE : shardName(n, shards.length);
    return { name, shard, path: join(dir, name) };
  });
  const files = named.map(({ path, shard }) => ({
    path,
    content: safetensorsContent(path, shard, metadata),
  }));
  if (shards.length === 1) return files;

  const weightMap = new Map<string, string>();
  for (const { name, shard } of named) {
    for (const tensor of shard) {
      if (weightMap.has(tensor.name)) {
        throw new CheckpointError(
          `cannot write ${dir}: two tensors are named ${JSON.stringify(tensor.name)}`,
        );
      }
      weightMap.set(tensor.name, name);
    }
  }
  return [...files, { path: join(dir, INDEX), content: encodeIndex(weightMap, sumBytes(shards.flat())) }];
}

function split(tensors: Iterable<TensorToWrite>, maxShardBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [];
  let bytes = Infinity;
  for (const tensor of tensors) {
    if (bytes + tensor.byteLength > maxShardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(tensor);
    bytes += tensor.byteLength;
  }
  return shards.length > 0 ? shards : [[]];
}

function sumBytes(tensors: readonly TensorToWrite[]): number {
  return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function shardName(index: number, count: number): string {
  const digits = (n: number) => String(n).padStart(5, '0');
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

function encodeIndex(weightMap: ReadonlyMap<string, string>, totalBytes: number): string {
  const lines = [...weightMap].map(([name, shard]) => `    ${JSON.stringify(name)}: "${shard}"`);
  return `{\n  "metadata": {\n    "total_size": ${totalBytes}\n  },\n  "weight_map": {\n${lines.join(',\n')}\n  }\n}\n`;
}

async function openFiles(
  dir: string,
  names: Iterable<string>,
  build: (files: readonly SafetensorsFile[]) => ShardedCheckpoint,
): Promise<ShardedCheckpoint> {
  const files: SafetensorsFile[] = [];
  try {
    for (const name of names) files.push(await SafetensorsFile.open(join(dir, name)));
    return build(files);
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

async function closeAll(files: readonly SafetensorsFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

async function readWeightMap(path: string): Promise<ReadonlyMap<string, string>> {
  const { weight_map: weightMap } = await readJsonObject(path);
  if (!isJsonObject(weightMap)) throw new CheckpointError(`${path}: weight_map is no JSON object`);
  const map = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== 'string' || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      throw new CheckpointError(
        `${path}: tensor ${JSON.stringify(name)} is said to be in ${JSON.stringify(shard)}, ` +
          'expected the name of a .safetensors file in the same directory',
      );
    }
    map.set(name, shard);
  }
  return map;
}

async function readJsonObject(path: string): Promise<JsonObject> {
  const text = await naming(path, () => readFile(path, 'utf8'), 'read');
  try {
    const value = parseStrictJson(text);
    if (isJsonObject(value)) return value;
  } catch (error) {
    throw new CheckpointError(`${path}: ${(error as Error).message}`, { cause: error });
  }
  throw new CheckpointError(`${path}: no JSON object`);
}

function missing(dir: string, names: readonly string[]): string {
  const pickled = names.find((name) => /^pytorch_model.*\.bin$/.test(name));
  const hint = pickled === undefined ? '' : ` (${pickled} cannot be read: convert it to safetensors)`;
  return `${dir}: neither ${SINGLE} nor ${INDEX} is there${hint}`;
}

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { DataError, ValueError } from '../errors.js';
import { naming, recoverDirectory, removeLeftovers, writeDirectoryAtomic } from '../io/atomic.js';
import { readDocuments, type CorpusOptions, type Document } from './corpus.js';
import { resolveFiles } from './files.js';
import { hashFile, isTokenFile, TokenReader, TokenWriter, type TokenFiles } from './shards.js';
import type { Tokenizer } from './tokenizer.js';

/** A part of a data set. */
export type Split = 'train' | 'validation';

/** What is tokenised, and where the shards go. */
export interface BuildOptions extends CorpusOptions {
  /** Must have an end-of-text token, which is put after each document. */
  tokenizer: Tokenizer;
  /** The directory of the data set. An older data set in it is replaced when it is not the one asked for. */
  outDir: string;
  /** The probability that a document is held out, in [0, 1). Default 0.05. */
  validationFraction?: number;
  /** Decides which documents are held out. Default 0. */
  seed?: number;
  /** Tokens per file. Default 64 Mi. */
  shardTokens?: number;
  /** Told after each batch of documents. */
  onProgress?: (progress: { documents: number; tokens: number }) => void;
}

const INDEX = 'dataset.json';
const SPLITS = ['train', 'validation'] as const;
const DEFAULT_SHARD_TOKENS = 2 ** 26;
/** Documents are tokenised in batches of about this many characters. */
const BATCH_LENGTH = 1 << 21;

const count = z.number().int().nonnegative();
const hex = z.string().regex(/^[0-9a-f]{64}$/);
const tokenFiles = z
  .strictObject({
    tokens: count,
    documents: count,
    documentsSha256: hex,
    shards: z.array(z.strictObject({ tokens: count, sha256: hex })),
  })
  .refine(({ tokens, shards }) => shards.reduce((sum, shard) => sum + shard.tokens, 0) === tokens, {
    message: 'the shards do not add up to the tokens',
  });
const indexSchema = z.strictObject({
  format: z.literal('moduleformer-dataset'),
  version: z.literal(1),
  fingerprint: hex,
  tokenizerHash: hex,
  vocabSize: count,
  eosId: count,
  dtype: z.enum(['u16', 'u32']),
  seed: count,
  validationFraction: z.number(),
  train: tokenFiles,
  validation: tokenFiles,
});
type Index = z.infer<typeof indexSchema>;

/**
 * A corpus as token ids on disk, split into training and held-out documents. Each document ends with EOS. Which split a
 * document belongs to depends on its text and the seed alone, so equal documents are never in both.
 */
export class TextDataset {
  /** Where it lies. */
  readonly dir: string;
  /** The tokens to train on. */
  readonly train: TokenReader;
  /** The tokens of the documents that are held out. */
  readonly validation: TokenReader;
  readonly #index: Index;

  private constructor(dir: string, index: Index, train: TokenReader, validation: TokenReader) {
    this.dir = dir;
    this.#index = index;
    this.train = train;
    this.validation = validation;
  }

  /** Ids of the tokenizer that it was made with; all tokens are below. */
  get vocabSize(): number {
    return this.#index.vocabSize;
  }

  /** The token at the end of every document. */
  get eosId(): number {
    return this.#index.eosId;
  }

  /** SHA-256 of everything that the tokens depend on: sources, tokenizer, options. */
  get fingerprint(): string {
    return this.#index.fingerprint;
  }

  /**
   * Tokenises a corpus into `outDir`, whole or not at all; or opens what is there, when it is intact and was made from
   * the same content with the same tokenizer and options.
   *
   * @throws DataError when the corpus cannot be read, the tokenizer has no end-of-text token, or a split stays empty.
   * @throws CheckpointError when `outDir` holds other files or cannot be written; nothing is changed then.
   */
  static async build(options: BuildOptions): Promise<TextDataset> {
    const {
      tokenizer,
      outDir,
      validationFraction = 0.05,
      seed = 0,
      shardTokens = DEFAULT_SHARD_TOKENS,
    } = options;
    if (!(validationFraction >= 0 && validationFraction < 1)) {
      throw new ValueError(`validationFraction must be in [0, 1), got ${validationFraction}`);
    }
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new ValueError(`seed must be an integer >= 0, got ${seed}`);
    if (!Number.isSafeInteger(shardTokens) || shardTokens < 1) {
      throw new ValueError(`shardTokens must be an integer >= 1, got ${shardTokens}`);
    }
    const { eosId } = tokenizer;
    if (eosId === undefined) {
      throw new DataError('the tokenizer has no end-of-text token to separate documents with (eos_token)');
    }
    const settings = { ...options, eosId, validationFraction, seed, shardTokens };
    const fingerprint = await fingerprintOf(settings);
    const present = await openIfSame(outDir, fingerprint);
    if (present !== undefined) return present;

    await removeLeftovers(outDir);
    await writeDirectoryAtomic(
      outDir,
      (dir) => naming(outDir, () => writeDataset(dir, fingerprint, settings)),
      (file) => file === INDEX || isTokenFile(file, SPLITS),
    );
    return TextDataset.open(outDir, { tokenizer });
  }

  /**
   * Opens a data set. Sizes and the index are checked here, ids when they are read; `verify` reads everything.
   * @throws DataError when it is missing, damaged, or made with another tokenizer than the one given.
   */
  static async open(dir: string, options: { tokenizer?: Tokenizer } = {}): Promise<TextDataset> {
    await recoverDirectory(dir);
    const index = await readIndex(path.join(dir, INDEX));
    if (options.tokenizer !== undefined && options.tokenizer.hash !== index.tokenizerHash) {
      throw new DataError(`${dir} was made with another tokenizer: build it again with this one`);
    }
    const [train, validation] = await Promise.all(
      SPLITS.map((split) => TokenReader.open(dir, split, index.dtype, index.vocabSize, index[split])),
    );
    return new TextDataset(dir, index, train as TokenReader, validation as TokenReader);
  }

  /** Reads all files. @throws DataError when one is not what was written. */
  async verify(): Promise<void> {
    for (const split of SPLITS) await this[split].verify();
  }

  /** @throws DataError when the data has ids that a model with `vocabSize` embeddings lacks. */
  assertFits(vocabSize: number): void {
    if (this.vocabSize > vocabSize) {
      throw new DataError(
        `${this.dir} has ids below ${this.vocabSize}, the model's vocab_size is only ${vocabSize}`,
      );
    }
  }
}

type Settings = BuildOptions & {
  eosId: number;
  validationFraction: number;
  seed: number;
  shardTokens: number;
};

async function fingerprintOf(settings: Settings): Promise<string> {
  const { tokenizer, eosId, validationFraction, seed, shardTokens, textField, delimiter } = settings;
  const sources: [string, string][] = [];
  for (const file of await resolveFiles(settings.files)) {
    // The name decides how a file is read; where it lies does not matter.
    sources.push([path.basename(file), (await hashFile(file)).digest('hex')]);
  }
  const all = {
    version: 1,
    sources,
    tokenizer: tokenizer.hash,
    eosId,
    validationFraction,
    seed,
    shardTokens,
  };
  return sha256(JSON.stringify({ ...all, textField: textField ?? null, delimiter: delimiter ?? null }));
}

/** The data set in `dir`, if it is there, intact as far as opening it tells, and the one asked for. */
async function openIfSame(dir: string, fingerprint: string): Promise<TextDataset | undefined> {
  try {
    const dataset = await TextDataset.open(dir);
    return dataset.fingerprint === fingerprint ? dataset : undefined;
  } catch (error) {
    if (error instanceof DataError) return undefined;
    throw error;
  }
}

async function writeDataset(dir: string, fingerprint: string, settings: Settings): Promise<void> {
  const { tokenizer, eosId, validationFraction, seed, shardTokens } = settings;
  const dtype = tokenizer.vocabSize <= 2 ** 16 ? 'u16' : 'u32';
  const train = new TokenWriter(dir, 'train', dtype, shardTokens);
  const validation = new TokenWriter(dir, 'validation', dtype, shardTokens);
  let files: Record<Split, TokenFiles>;
  try {
    let documents = 0;
    for await (const batch of batches(readDocuments(settings))) {
      const encoded = await tokenizer.encodeBatch(batch);
      for (const [i, ids] of encoded.entries()) {
        const writer = isHeldOut(batch[i] ?? '', seed, validationFraction) ? validation : train;
        await writer.append([...ids, eosId]);
      }
      documents += batch.length;
      settings.onProgress?.({ documents, tokens: train.tokens + validation.tokens });
    }
    files = { train: await train.finish(), validation: await validation.finish() };
  } finally {
    await train.close();
    await validation.close();
  }
  assertNotEmpty(files, validationFraction);
  const index: Index = {
    format: 'moduleformer-dataset',
    version: 1,
    fingerprint,
    tokenizerHash: tokenizer.hash,
    vocabSize: tokenizer.vocabSize,
    eosId,
    dtype,
    seed,
    validationFraction,
    train: { ...files.train, shards: [...files.train.shards] },
    validation: { ...files.validation, shards: [...files.validation.shards] },
  };
  const checksum = sha256(JSON.stringify(index));
  await writeFile(path.join(dir, INDEX), `${JSON.stringify({ ...index, checksum }, null, 1)}\n`);
}

function assertNotEmpty({ train, validation }: Record<Split, TokenFiles>, validationFraction: number): void {
  const documents = train.documents + validation.documents;
  if (documents === 0) throw new DataError('the corpus is empty: no file has a document');
  const empty =
    train.documents === 0 ? 'train' : validation.documents === 0 && validationFraction > 0 && 'validation';
  if (!empty) return;
  throw new DataError(
    `none of the ${documents} documents fell into the ${empty} split with validationFraction ${validationFraction}: ` +
      'split the files into more documents with a delimiter, or choose another fraction or seed',
  );
}

/** The texts of documents, gathered to batches that are worth a call of the tokenizer. */
async function* batches(documents: AsyncIterable<Document>): AsyncGenerator<string[]> {
  let batch: string[] = [];
  let length = 0;
  for await (const { text } of documents) {
    batch.push(text);
    length += text.length;
    if (length < BATCH_LENGTH) continue;
    yield batch;
    batch = [];
    length = 0;
  }
  if (batch.length > 0) yield batch;
}

function isHeldOut(text: string, seed: number, fraction: number): boolean {
  const hash = createHash('sha256').update(`${seed}:`).update(text).digest();
  return hash.readUIntBE(0, 6) / 2 ** 48 < fraction;
}

async function readIndex(file: string): Promise<Index> {
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new DataError(`no data set: ${file} does not exist`);
    throw new DataError(`${file}: cannot be read: ${(cause as Error).message}`, { cause });
  }
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(content) as Record<string, unknown>;
  } catch (cause) {
    throw new DataError(`${file}: not valid JSON; the data set is damaged`, { cause });
  }
  const { checksum, ...rest } = value ?? {};
  const index = indexSchema.safeParse(rest);
  if (!index.success)
    throw new DataError(`${file}: not a data set's index:\n${z.prettifyError(index.error)}`);
  if (checksum !== sha256(JSON.stringify(rest))) throw new DataError(`${file}: changed after it was written`);
  return index.data;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

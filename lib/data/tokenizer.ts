import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import type { Tokenizer as NativeBackend } from 'tokenizers';
import { DataError, ValueError } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';
import { DecodeStream } from './decode-stream.js';
import { linePieces } from './line-pieces.js';
import { loadNativeTokenizers } from './native-tokenizers.js';

/** The content of a tokenizer.json, as far as this class reads it. */
export interface TokenizerJson {
  /** Vocabulary and merges. */
  readonly model: object;
  /** Special tokens, and others that are never split. */
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[];
  readonly [field: string]: unknown;
}

/** The content of a tokenizer_config.json: names of special tokens among fields that are only preserved. */
export type TokenizerConfig = Readonly<Record<string, unknown>>;

/** Texts longer than this are encoded in pieces, if possible. */
const PIECE_LENGTH = 1 << 20;

/** What this class uses of `@huggingface/tokenizers`, whose own declarations do not resolve under NodeNext. */
interface Backend {
  readonly model: { readonly vocab: readonly string[] } | null;
  readonly pre_tokenizer: unknown;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[]; tokens: string[] };
  decode(
    ids: number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

const BackendTokenizer = HuggingFaceTokenizer as unknown as new (json: object, config: object) => Backend;

/** End-of-text tokens of well-known tokenizers, for files without a tokenizer_config.json. */
const KNOWN_EOS = ['<|endoftext|>', '<|end_of_text|>', '</s>'];

/**
 * A Hugging Face tokenizer. Encoding adds no special tokens of its own and decoding cleans nothing up, so a byte-level
 * tokenizer round-trips every text exactly.
 *
 * `encode` and `decode` are JavaScript; `encodeBatch` uses the optional native package `tokenizers` where installed.
 * Both give the same ids; only letters and digits newer than the Unicode version of one of the two may be split
 * differently (they decode to the same text).
 */
export class Tokenizer {
  /** The number of ids: one more than the largest. */
  readonly vocabSize: number;
  /** The end-of-text token: `eos_token`, else a well-known one; undefined, as those below, where there is none. */
  readonly eosId: number | undefined;
  /** The id of `bos_token`. */
  readonly bosId: number | undefined;
  /** The id of `pad_token`. */
  readonly padId: number | undefined;
  /** The id of `unk_token`. */
  readonly unkId: number | undefined;
  /** SHA-256 of the content of tokenizer.json, independent of its formatting. */
  readonly hash: string;

  readonly #json: TokenizerJson;
  readonly #config: TokenizerConfig;
  readonly #backend: Backend;
  readonly #splitsAtLines: boolean;
  #native: NativeBackend | undefined | null = null; // null: not yet looked for

  /** @throws DataError when the content is no tokenizer or names a special token that it lacks. */
  constructor(json: TokenizerJson, config: TokenizerConfig = {}) {
    try {
      this.#backend = new BackendTokenizer(json, config);
      useUnicodeWhitespace(this.#backend.pre_tokenizer);
    } catch (cause) {
      throw new DataError(`not a usable tokenizer.json: ${(cause as Error).message}`, { cause });
    }
    this.#json = json;
    this.#config = config;
    this.vocabSize = this.#backend.model?.vocab.length ?? 0;
    if (this.vocabSize === 0) throw new DataError('not a usable tokenizer.json: its vocabulary is empty');
    this.eosId = this.#specialId('eos_token') ?? this.#firstKnown(KNOWN_EOS);
    this.bosId = this.#specialId('bos_token');
    this.padId = this.#specialId('pad_token');
    this.unkId = this.#specialId('unk_token');
    this.#splitsAtLines = splitsAtLines(json);
    this.hash = createHash('sha256').update(JSON.stringify(json)).digest('hex');
  }

  /**
   * Reads `tokenizer.json`, given itself or by its directory, and `tokenizer_config.json` beside it if there is one.
   * @throws DataError when a file is missing or is no tokenizer.
   */
  static async fromFile(pathOrDir: string): Promise<Tokenizer> {
    const isDir = (await stat(pathOrDir).catch(() => undefined))?.isDirectory() ?? false;
    const file = isDir ? path.join(pathOrDir, 'tokenizer.json') : pathOrDir;
    const json = await readJson(file);
    if (json === undefined) throw new DataError(`no tokenizer: ${file} does not exist`);
    const config = await readJson(path.join(path.dirname(file), 'tokenizer_config.json'));
    try {
      return new Tokenizer(json as unknown as TokenizerJson, config ?? {});
    } catch (cause) {
      if (cause instanceof DataError) throw new DataError(`${file}: ${cause.message}`, { cause });
      throw cause;
    }
  }

  /** Reads the tokenizer of a checkpoint directory. @throws DataError as `fromFile`. */
  static fromPretrained(dir: string): Promise<Tokenizer> {
    return Tokenizer.fromFile(dir);
  }

  /**
   * The ids of a text. As everywhere, a BPE tokenizer with neither all bytes nor an unknown token drops what it lacks.
   * @throws DataError when a part of the text is unknown and the unknown token has no id.
   */
  encode(text: string): number[] {
    if (typeof text !== 'string') throw new ValueError(`encode: expected a string, got ${typeof text}`);
    const { ids, tokens } = this.#backend.encode(text, { add_special_tokens: false });
    const unknown = (ids as (number | undefined)[]).indexOf(undefined);
    if (unknown >= 0)
      throw new DataError(`encode: the tokenizer has no token for ${JSON.stringify(tokens[unknown])}`);
    return ids;
  }

  /**
   * The ids of many texts: the same as `encode` of each, faster and off the main thread where `tokenizers` is. Long
   * texts are done piece by piece where that gives the same ids, for an encoding takes some 600 bytes per token.
   */
  async encodeBatch(texts: readonly string[]): Promise<number[][]> {
    if (!this.#splitsAtLines || texts.every(({ length }) => length <= PIECE_LENGTH))
      return this.#encodeAll(texts);
    const results: number[][] = [];
    for (const text of texts) {
      const pieces: number[][] = [];
      for (const piece of linePieces(text, PIECE_LENGTH)) pieces.push(...(await this.#encodeAll([piece])));
      results.push(pieces.flat());
    }
    return results;
  }

  /** The text of ids. @throws ValueError when an id is outside the vocabulary. */
  decode(ids: readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabSize) {
        throw new ValueError(`decode: id ${id} is outside the vocabulary of ${this.vocabSize}`);
      }
    }
    if (ids.length === 0) return '';
    return this.#backend.decode([...ids], {
      skip_special_tokens: options.skipSpecialTokens ?? false,
      clean_up_tokenization_spaces: false,
    });
  }

  /** A decoder for ids that arrive one by one. */
  createDecodeStream(options: { skipSpecialTokens?: boolean } = {}): DecodeStream {
    return new DecodeStream(this, options);
  }

  /** The id of a token, by its exact content in the vocabulary; undefined when it has none. */
  tokenToId(token: string): number | undefined {
    return this.#backend.token_to_id(token);
  }

  /** @throws DataError when this tokenizer has ids that a model with `vocabSize` embeddings lacks. */
  assertFits(vocabSize: number): void {
    if (this.vocabSize > vocabSize) {
      throw new DataError(
        `the tokenizer has ${this.vocabSize} ids, the model's vocab_size is ${vocabSize}: it must be at least as large`,
      );
    }
  }

  /** Writes `tokenizer.json` and `tokenizer_config.json` into a directory, created where missing; each atomically. */
  async save(dir: string): Promise<void> {
    await mkdir(dir, { recursive: true });
    await writeFileAtomic(path.join(dir, 'tokenizer.json'), `${JSON.stringify(this.#json, null, 1)}\n`);
    const config = { tokenizer_class: 'PreTrainedTokenizerFast', ...this.#eosConfig(), ...this.#config };
    await writeFileAtomic(path.join(dir, 'tokenizer_config.json'), `${JSON.stringify(config, null, 2)}\n`);
  }

  async #encodeAll(texts: readonly string[]): Promise<number[][]> {
    if (this.#native === null) this.#native = openNative(this.#json);
    if (this.#native === undefined) return texts.map((text) => this.encode(text));
    const encodings = await this.#native.encodeBatch([...texts], { addSpecialTokens: false });
    return encodings.map((encoding) => encoding.getIds());
  }

  #eosConfig(): TokenizerConfig {
    return this.eosId === undefined ? {} : { eos_token: this.#backend.id_to_token(this.eosId) };
  }

  #specialId(field: string): number | undefined {
    const value = this.#config[field];
    if (value === undefined || value === null) return undefined;
    const token = typeof value === 'string' ? value : (value as { content?: unknown }).content;
    const id = typeof token === 'string' ? this.tokenToId(token) : undefined;
    if (id === undefined) throw new DataError(`${field} ${JSON.stringify(value)} is not in the vocabulary`);
    return id;
  }

  #firstKnown(tokens: readonly string[]): number | undefined {
    const known = tokens.find((token) => this.#json.added_tokens.some((added) => added.content === token));
    return known === undefined ? undefined : this.tokenToId(known);
  }
}

/** Whether the pattern is GPT-2's and nothing else looks at more than a word, as `linePieces` needs. */
function splitsAtLines({ pre_tokenizer, normalizer, added_tokens }: TokenizerJson): boolean {
  const pattern = pre_tokenizer as { type?: string; add_prefix_space?: boolean; use_regex?: boolean } | null;
  return (
    pattern?.type === 'ByteLevel' &&
    pattern.add_prefix_space === false &&
    pattern.use_regex !== false &&
    (normalizer ?? null) === null &&
    !added_tokens.some(({ content }) => content.includes('\n'))
  );
}

/** The native tokenizer; undefined where it is not installed or is stricter about a file than the JavaScript one. */
function openNative(json: TokenizerJson): NativeBackend | undefined {
  try {
    const native = loadNativeTokenizers()?.Tokenizer.fromString(JSON.stringify(json));
    // A file may ask for truncation or padding, which the native package alone would apply.
    native?.disableTruncation();
    native?.disablePadding();
    return native;
  } catch {
    return undefined;
  }
}

async function readJson(file: string): Promise<Record<string, unknown> | undefined> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new DataError(`${file}: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== 'object' || value === null) throw new DataError(`${file}: expected a JSON object`);
  return value as Record<string, unknown>;
}

/**
 * Makes the white space of the split patterns that of Unicode, as in the native package: JavaScript's `\s` has U+FEFF
 * and lacks U+0085.
 */
function useUnicodeWhitespace(preTokenizer: unknown): void {
  if (typeof preTokenizer !== 'object' && typeof preTokenizer !== 'function') return;
  const node = preTokenizer as { pattern?: unknown; tokenizers?: unknown } | null;
  if (node?.pattern instanceof RegExp && node.pattern.unicode) {
    const source = node.pattern.source
      .replaceAll('\\s', '\\p{White_Space}')
      .replaceAll('\\S', '\\P{White_Space}');
    node.pattern = new RegExp(source, node.pattern.flags);
  }
  if (Array.isArray(node?.tokenizers)) node.tokenizers.forEach(useUnicodeWhitespace);
}

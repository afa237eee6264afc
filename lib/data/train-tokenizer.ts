import { execFile } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { DataError, ValueError } from '../errors.js';
import { readDocuments } from './corpus.js';
import { INSTALL_HINT, nativeTokenizersPath } from './native-tokenizers.js';
import { Tokenizer } from './tokenizer.js';

/** What a tokenizer is trained on, and its size. */
export interface TrainTokenizerOptions {
  /** Text or JSONL files, as for `readDocuments`; either these or `texts`. */
  files?: string | readonly string[];
  /** Texts, in memory or as they come; either these or `files`. */
  texts?: Iterable<string> | AsyncIterable<string>;
  /** The number of ids of the result: special tokens + 256 bytes + merges. */
  vocabSize: number;
  /** Special tokens, which get the first ids. The first is the end-of-text token. Default `['<|endoftext|>']`. */
  specialTokens?: readonly string[];
}

/** Runs in a process of its own: the native trainer blocks its thread for seconds and writes to the terminal. */
const TRAIN_SCRIPT = `
const { BPE, Tokenizer, byteLevelPreTokenizer } = require(process.argv[1]);
const tokenizer = new Tokenizer(BPE.empty());
tokenizer.setPreTokenizer(byteLevelPreTokenizer(false, true));
tokenizer.train([process.argv[2]]);
tokenizer.save(process.argv[3]);
`;

type Merge = readonly [string, string];

/**
 * Trains a byte-level BPE tokenizer (the GPT-2 scheme) of exactly `vocabSize` ids. Every byte has a token, so every
 * text can be encoded and decodes to itself. The same texts give the same tokenizer. Merges are learnt within lines.
 *
 * @throws DataError when the package `tokenizers` is missing, or the texts are too few for `vocabSize`.
 * @throws ValueError when `vocabSize` has no room for the special tokens and the 256 bytes.
 */
export async function trainTokenizer(options: TrainTokenizerOptions): Promise<Tokenizer> {
  const { files, texts, vocabSize, specialTokens = ['<|endoftext|>'] } = options;
  if ((files === undefined) === (texts === undefined)) {
    throw new ValueError('trainTokenizer: give either files or texts');
  }
  const distinct = new Set(specialTokens).size === specialTokens.length;
  if (specialTokens.length === 0 || !distinct || specialTokens.some((token) => token.length < 2)) {
    throw new ValueError(
      'trainTokenizer: specialTokens must be distinct, of two characters or more, at least one',
    );
  }
  const smallest = specialTokens.length + 256;
  if (!Number.isSafeInteger(vocabSize) || vocabSize < smallest) {
    throw new ValueError(
      `trainTokenizer: vocabSize must be an integer of at least ${smallest}, got ${vocabSize}`,
    );
  }
  const merges = await learnMerges(texts ?? documentTexts(files ?? []), specialTokens);
  return new Tokenizer(byteLevelTokenizer(merges, vocabSize, specialTokens), {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    eos_token: specialTokens[0],
  });
}

async function* documentTexts(files: string | readonly string[]): AsyncGenerator<string> {
  for await (const { text } of readDocuments({ files })) yield text;
}

/** The merges of a vocabulary of 30,000, the one size that the Node binding trains, most frequent first. */
async function learnMerges(
  texts: Iterable<string> | AsyncIterable<string>,
  specialTokens: readonly string[],
): Promise<readonly Merge[]> {
  const packagePath = nativeTokenizersPath();
  if (packagePath === undefined) {
    throw new DataError(`training a tokenizer needs the optional package 'tokenizers': ${INSTALL_HINT}`);
  }
  const dir = await mkdtemp(path.join(tmpdir(), 'moduleformer-tokenizer-'));
  try {
    const input = path.join(dir, 'texts.txt');
    const output = path.join(dir, 'tokenizer.json');
    await pipeline(Readable.from(trainingLines(texts, specialTokens)), createWriteStream(input));
    await promisify(execFile)(process.execPath, ['-e', TRAIN_SCRIPT, packagePath, input, output]).catch(
      (cause: unknown) => {
        const { stderr } = cause as { stderr?: string };
        throw new DataError(`the package 'tokenizers' failed (${INSTALL_HINT} again?): ${stderr?.trim()}`, {
          cause,
        });
      },
    );
    const trained = JSON.parse(await readFile(output, 'utf8')) as { model: { merges: Merge[] } };
    return trained.model.merges;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** The texts without special tokens, which are never part of a merge. */
async function* trainingLines(
  texts: Iterable<string> | AsyncIterable<string>,
  specialTokens: readonly string[],
): AsyncGenerator<string> {
  for await (const text of texts) {
    yield `${specialTokens.reduce((rest, token) => rest.replaceAll(token, '\n'), text)}\n`;
  }
}

/** A tokenizer.json with the special tokens, the byte alphabet, then as many merges as fit. */
function byteLevelTokenizer(merges: readonly Merge[], vocabSize: number, specialTokens: readonly string[]) {
  const vocab = new Map([...specialTokens, ...byteAlphabet()].map((token, id) => [token, id]));
  const kept: Merge[] = [];
  for (const merge of merges) {
    if (vocab.size === vocabSize) break;
    kept.push(merge);
    const token = merge.join('');
    if (!vocab.has(token)) vocab.set(token, vocab.size);
  }
  if (vocab.size < vocabSize) {
    throw new DataError(
      `vocabSize is ${vocabSize}, but these texts give only ${vocab.size} tokens (at most 30,000)`,
    );
  }
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: kept,
    },
  };
}

/** GPT-2's 256 printable stand-ins for bytes, in the order of the bytes. */
function byteAlphabet(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(printable(byte) ? byte : 256 + others++),
  );
}

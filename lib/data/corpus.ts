import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { DataError, ValueError } from '../errors.js';
import { resolveFiles } from './files.js';

/** Files, and how they fall into documents. */
export interface CorpusOptions {
  /** Files, directories (searched for .txt, .md and .jsonl) or patterns with `*`, `?`, `**`; each also .gz or .zst. */
  files: string | readonly string[];
  /** The field of a JSON line that holds the text. Default 'text'. */
  textField?: string;
  /** What separates the documents of a text file, such as '<|endoftext|>'. Without it a file is one document. */
  delimiter?: string;
  /** Documents and lines longer than this many UTF-16 units are an error. Default 64 Mi. */
  maxDocumentLength?: number;
}

/** A text of its own: nothing attends across its ends. */
export interface Document {
  /** Never empty. */
  readonly text: string;
  /** The file it comes from. */
  readonly source: string;
  /** Its number within the file, from 0. */
  readonly index: number;
}

const DEFAULT_MAX_LENGTH = 2 ** 26;

/**
 * The documents of text and JSONL files, in order, as a stream: no file is held in memory, only the current document.
 * Files are UTF-8, with or without a byte order mark. Empty documents and blank lines are skipped.
 *
 * @throws DataError that names the file, and the line where there is one, when an input is missing, damaged, not UTF-8,
 *   not JSON, lacks the text field or is too long.
 */
export async function* readDocuments(options: CorpusOptions): AsyncGenerator<Document> {
  const { textField = 'text', delimiter, maxDocumentLength = DEFAULT_MAX_LENGTH } = options;
  if (delimiter === '') throw new ValueError('readDocuments: delimiter must not be empty');
  for (const source of await resolveFiles(options.files)) {
    const chunks = decodeText(source, decompress(source));
    const texts = /\.(jsonl|ndjson)(\.gz|\.zst)?$/i.test(source)
      ? jsonTexts(source, chunks, textField, maxDocumentLength)
      : splitText(source, chunks, delimiter, maxDocumentLength);
    let index = 0;
    for await (const text of texts) if (text !== '') yield { text, source, index: index++ };
  }
}

/** The bytes of a file, decompressed as its name says. */
function decompress(file: string): AsyncIterable<Uint8Array> {
  const bytes = createReadStream(file, { highWaterMark: 1 << 18 });
  if (/\.gz$/i.test(file)) {
    return pipeline(bytes, createGunzip(), () => undefined); // an error of either reaches the reader of the result
  }
  return /\.zst$/i.test(file) ? decompressZstd(bytes) : bytes;
}

async function* decompressZstd(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let ready: Uint8Array[] = [];
  const decompressor = new Decompress((chunk) => ready.push(chunk.slice())); // the chunk is reused
  for await (const chunk of bytes) {
    decompressor.push(chunk);
    yield* ready;
    ready = [];
  }
  decompressor.push(new Uint8Array(0), true);
  yield* ready;
}

async function* decodeText(source: string, bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    for await (const chunk of bytes) yield decoder.decode(chunk, { stream: true });
    yield decoder.decode();
  } catch (cause) {
    throw new DataError(`${source}: ${reason(cause as NodeJS.ErrnoException)}`, { cause });
  }
}

function reason(cause: NodeJS.ErrnoException): string {
  if (cause.code === 'ERR_ENCODING_INVALID_ENCODED_DATA') return 'not valid UTF-8';
  return `cannot be read: ${cause.message}`;
}

/** The parts of a text between separators; the whole text without one. */
async function* splitText(
  source: string,
  chunks: AsyncIterable<string>,
  separator: string | undefined,
  maxLength: number,
): AsyncGenerator<string> {
  const overlap = separator === undefined ? 0 : separator.length - 1;
  let number = 1;
  let parts: string[] = [];
  let length = 0;
  let rest = ''; // the end of the last chunk, in which a separator may begin
  const add = (part: string): void => {
    parts.push(part);
    length += part.length;
    if (length <= maxLength) return;
    const unit = separator === '\n' ? `line ${number}` : `document ${number}`;
    throw new DataError(
      `${source}: ${unit} is longer than ${maxLength} characters; split it with a delimiter`,
    );
  };
  for await (const chunk of chunks) {
    const text = rest + chunk;
    let from = 0;
    if (separator !== undefined) {
      for (let at = text.indexOf(separator); at >= 0; at = text.indexOf(separator, from)) {
        add(text.slice(from, at));
        yield parts.join('');
        number++;
        parts = [];
        length = 0;
        from = at + separator.length;
      }
    }
    const end = Math.max(from, text.length - overlap);
    add(text.slice(from, end));
    rest = text.slice(end);
  }
  add(rest);
  yield parts.join('');
}

async function* jsonTexts(
  source: string,
  chunks: AsyncIterable<string>,
  field: string,
  maxLength: number,
): AsyncGenerator<string> {
  let line = 0;
  for await (const json of splitText(source, chunks, '\n', maxLength)) {
    line++;
    if (json.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(json);
    } catch (cause) {
      throw new DataError(`${source}:${line}: not valid JSON: ${(cause as Error).message}`, { cause });
    }
    const isObject = typeof value === 'object' && value !== null && Object.hasOwn(value, field);
    const text = isObject ? (value as Record<string, unknown>)[field] : undefined;
    if (typeof text !== 'string') {
      const given = isObject ? `is ${text === null ? 'null' : typeof text}` : 'is missing';
      throw new DataError(`${source}:${line}: the field "${field}" ${given}, expected a string`);
    }
    yield text;
  }
}

import { readdir } from 'node:fs/promises';
import { readDocuments } from '../data/corpus.js';
import type { Batch } from '../data/loader.js';
import { streamedBatches } from '../data/streamed-batches.js';
import { Tokenizer } from '../data/tokenizer.js';
import { ConfigError, DataError, ValueError } from '../errors.js';
import { isWeightsFile } from '../io/sharded-checkpoint.js';
import { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { prepareBackend } from './backend.js';
import { loadCausalLM, resolveCheckpoint } from './models.js';
import type { ReadingFlags } from './reading-flags.js';

const UNNAMED = 'text';

/** Loads a model with experts, in evaluation mode. @throws ConfigError for a dense baseline, CheckpointError */
export async function loadExperts(
  path: string,
  { dtype, device = 'cpu', threads }: Partial<Pick<ReadingFlags, 'dtype' | 'device' | 'threads'>> = {},
): Promise<{ checkpoint: string; model: ModuleFormerForCausalLM }> {
  prepareBackend({ threads, device });
  const checkpoint = await resolveCheckpoint(path);
  const model = await loadCausalLM(checkpoint, { device, ...(dtype === undefined ? {} : { dtype }) });
  if (model instanceof ModuleFormerForCausalLM) return { checkpoint, model };
  throw new ConfigError(`${checkpoint}: a dense baseline, which has no experts`);
}

/** The tokenizer named by a flag, or that of the checkpoint. @throws DataError, CheckpointError */
export async function readingTokenizer(
  { tokenizer: path }: Pick<ReadingFlags, 'tokenizer'>,
  checkpoint: string,
  model: ModuleFormerForCausalLM,
): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.fromFile(path ?? checkpoint);
  tokenizer.assertFits(model.config.vocab_size);
  return tokenizer;
}

/**
 * The batches of each domain, at most `maxTokens` tokens each, held in memory so that several models can read them.
 * @throws DataError when a file cannot be read.
 */
export async function readDomains(
  flags: ReadingFlags,
  tokenizer: Tokenizer,
): Promise<Record<string, Batch[]>> {
  const { textField, delimiter, batchSize, sequenceLength, maxTokens } = flags;
  const domains: Record<string, Batch[]> = {};
  for (const [name, files] of domainFiles(flags.data ?? [])) {
    const documents = readDocuments({
      files,
      ...(textField === undefined ? {} : { textField }),
      ...(delimiter === undefined ? {} : { delimiter }),
    });
    const batches: Batch[] = [];
    for await (const batch of streamedBatches(documents, { tokenizer, batchSize, sequenceLength })) {
      batches.push(batch);
      if (batches.length * batchSize * sequenceLength >= maxTokens) break;
    }
    if (batches.length === 0) throw new DataError(`the domain '${name}' has no text`);
    domains[name] = batches;
  }
  return domains;
}

/** The files of each domain from `name=file`; what has no name belongs to one domain. */
function domainFiles(entries: readonly string[]): Map<string, string[]> {
  const files = new Map<string, string[]>();
  for (const entry of entries) {
    const at = entry.indexOf('=');
    const name = at < 0 ? UNNAMED : entry.slice(0, at);
    if (name === '') throw new ValueError(`--data ${entry}: the domain has no name`);
    files.set(name, [...(files.get(name) ?? []), entry.slice(at + 1)]);
  }
  return files;
}

/** Saves a model with its tokenizer, if it has one. @throws DataError when `out` holds a checkpoint already. */
export async function saveNew(
  model: ModuleFormerForCausalLM,
  out: string,
  tokenizerDir: string,
): Promise<void> {
  await model.savePretrained(out);
  const names = await readdir(tokenizerDir);
  if (names.includes('tokenizer.json')) await (await Tokenizer.fromFile(tokenizerDir)).save(out);
}

/** @throws DataError when a directory holds a checkpoint, which is not overwritten. */
export async function requireNoCheckpoint(out: string): Promise<void> {
  const names = await readdir(out).catch(() => []);
  if (names.some(isWeightsFile))
    throw new DataError(`${out}: holds a checkpoint already; choose another directory`);
}

// What the experiments share: texts of several domains with one tokenizer.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { TextDataset } from '../../lib/data/dataset.js';
import { DataLoader, type Batch } from '../../lib/data/loader.js';
import { Tokenizer } from '../../lib/data/tokenizer.js';
import { trainTokenizer } from '../../lib/data/train-tokenizer.js';
import { corpusFile, type Domain } from './corpora.js';
import { lock } from './lock.js';
import type { Scale } from './scales.js';

/** A part of a domain's text. */
export interface Part {
  domain: Domain;
  bytes: number;
}

export interface Workbench {
  scale: Scale;
  /** Of the ways of learning a new language those whose names match. */
  arms: RegExp;
  cache: string;
  tokenizer: Tokenizer;
  /** Held-out batches of each domain. */
  heldOut: Readonly<Record<string, Batch[]>>;
  /** The texts of several domains as one data set; a tenth of the documents, by content, is held out. */
  texts(parts: readonly Part[]): Promise<TextDataset>;
  /** The whole text of these domains. */
  whole: (...domains: Domain[]) => Part[];
}

export async function openWorkbench(
  scale: Scale,
  { arms = /^/, cache = '.cache/abilities' }: { arms?: RegExp; cache?: string } = {},
): Promise<Workbench> {
  const domains = [...scale.domains, scale.newDomain];
  const whole = (...chosen: Domain[]): Part[] => chosen.map((domain) => ({ domain, bytes: scale.bytes }));
  const filesOf = async (parts: readonly Part[]): Promise<string[]> => {
    const files: string[] = [];
    for (const { domain, bytes } of parts) files.push(await corpusFile(domain, bytes, cache));
    return files;
  };
  const dir = path.join(cache, `${domains.join('-')}-${scale.bytes}-${scale.vocabSize}`);
  await mkdir(dir, { recursive: true });
  const tokenizer = await openTokenizer(
    path.join(dir, 'tokenizer'),
    await filesOf(whole(...domains)),
    scale.vocabSize,
  );
  const texts = async (parts: readonly Part[]): Promise<TextDataset> => {
    const outDir = path.join(dir, parts.map(({ domain, bytes }) => `${domain}-${bytes}`).join('-'));
    const release = await lock(`${outDir}.lock`);
    try {
      return await TextDataset.build({
        files: await filesOf(parts),
        tokenizer,
        outDir,
        validationFraction: 0.1,
      });
    } finally {
      await release();
    }
  };
  const heldOut: Record<string, Batch[]> = {};
  for (const domain of domains) {
    heldOut[domain] = await batchesOf(await texts(whole(domain)), 'validation', scale);
  }
  return { scale, arms, cache, tokenizer, heldOut, texts, whole };
}

async function openTokenizer(dir: string, files: string[], vocabSize: number): Promise<Tokenizer> {
  try {
    return await Tokenizer.fromFile(dir);
  } catch {
    const tokenizer = await trainTokenizer({ files, vocabSize });
    await tokenizer.save(dir);
    return tokenizer;
  }
}

/** About `heldOut` tokens of a data set. */
export async function batchesOf(
  dataset: TextDataset,
  split: 'train' | 'validation',
  { batchSize, sequenceLength, heldOut }: Scale,
): Promise<Batch[]> {
  const batches: Batch[] = [];
  const loader = new DataLoader({ dataset, split, batchSize, sequenceLength, shuffle: true, seed: 1 });
  for await (const batch of loader) {
    batches.push(batch);
    if (batches.length * batchSize * sequenceLength >= heldOut) break;
  }
  return batches;
}

/** The geometric mean over domains: exp of the mean loss, each domain counting the same. */
export function meanPerplexity(found: Readonly<Record<string, number>>, domains: readonly string[]): number {
  const logs = domains.map((domain) => Math.log(found[domain] as number));
  return Math.exp(logs.reduce((total, value) => total + value, 0) / logs.length);
}

/** `a` less `b`, in percent of `b`. */
export function percent(a: number, b: number): number {
  return 100 * (a / b - 1);
}

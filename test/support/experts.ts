import type { Batch } from '../../lib/data/loader.js';
import { streamedBatches } from '../../lib/data/streamed-batches.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { shake } from './gradient-check.js';
import { tinyConfig, tokenizer } from './training.js';
import { syntheticTexts } from './data.js';

export const GATES = ['mlp', 'linear', 'gmm'] as const;

/** Without dropout and drawn experts, 2 blocks of 4 experts of either kind, K = 2. */
export async function letterModel(
  fields: ModuleFormerConfigInit = {},
  dtype: 'f64' | 'f32' | 'bf16' = 'f64',
): Promise<ModuleFormerForCausalLM> {
  const still = { sample_topk: 0, resid_pdrop: 0, embd_pdrop: 0, moe_pdrop: 0 };
  const config = new ModuleFormerConfig({ ...tinyConfig, ...still, ...fields });
  const model = new ModuleFormerForCausalLM(config, { dtype, seed: 5 });
  await shake(model);
  return model;
}

/** Texts of the letters that `isUsed` accepts, as batches of 2 rows of 16. */
export async function letterBatches(
  isUsed: (letter: string) => boolean = () => true,
  { count = 6, seed = 1 } = {},
): Promise<Batch[]> {
  const texts = syntheticTexts(count, seed, 8).map((text) =>
    [...text.replace(/[^a-z]/g, '')].filter(isUsed).join(''),
  );
  return collect(texts);
}

export async function collect(texts: readonly string[]): Promise<Batch[]> {
  const documents = (async function* () {
    for (const text of texts) yield Promise.resolve({ text });
  })();
  const batches: Batch[] = [];
  const options = { tokenizer, batchSize: 2, sequenceLength: 16 };
  for await (const batch of streamedBatches(documents as never, options)) batches.push(batch);
  return batches;
}

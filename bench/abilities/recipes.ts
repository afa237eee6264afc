// Models by recipe. A recipe says all that a model depends on, and training is deterministic, whatever the number of
// threads; so a model that was trained once is kept, by a hash of its recipe, and found again by every experiment.
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { CausalLM, CausalLMConfig } from '../../lib/model/causal-lm.js';
import { evaluate } from '../../lib/training/evaluate.js';
import { lock } from './lock.js';
import type { Workbench } from './workbench.js';

export type Model = CausalLM<CausalLMConfig>;

export interface Recipe<M extends Model = Model> {
  /** What people call it. */
  readonly name: string;
  /** All that the model depends on, besides this package's version. */
  readonly key: Readonly<Record<string, unknown>>;
  train(): Promise<M>;
  load(dir: string): Promise<M>;
}

/** What is known of a trained model without loading it. */
export interface Trained {
  /** On the held-out text of each domain. */
  perplexities: Record<string, number>;
  /** Of training, on the machine of the day. */
  seconds: number;
}

const RESULT = 'trained.json';

function dirOf({ cache }: Workbench, { key }: Recipe): string {
  const hash = createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 20);
  return path.join(cache, 'models', hash);
}

/** The perplexities of a recipe's model, which is trained if it is not there. Processes side by side share the work. */
export async function trained<M extends Model>(bench: Workbench, recipe: Recipe<M>): Promise<Trained> {
  const dir = dirOf(bench, recipe);
  const known = await readTrained(dir);
  if (known) return known;
  await mkdir(path.dirname(dir), { recursive: true });
  const release = await lock(`${dir}.lock`);
  try {
    return (await readTrained(dir)) ?? (await trainInto(bench, recipe, dir));
  } finally {
    await release();
  }
}

/** A recipe's model, which belongs to the caller. */
export async function obtain<M extends Model>(bench: Workbench, recipe: Recipe<M>): Promise<M> {
  await trained(bench, recipe);
  return recipe.load(dirOf(bench, recipe));
}

async function trainInto<M extends Model>(
  bench: Workbench,
  recipe: Recipe<M>,
  dir: string,
): Promise<Trained> {
  const start = performance.now();
  const model = await recipe.train();
  const seconds = (performance.now() - start) / 1000;
  const perplexities: Record<string, number> = {};
  for (const [domain, batches] of Object.entries(bench.heldOut)) {
    perplexities[domain] = (await evaluate(model, batches)).perplexity;
  }
  const part = `${dir}.part`;
  await rm(part, { recursive: true, force: true });
  await model.savePretrained(part);
  model.dispose();
  await writeFile(path.join(part, 'recipe.json'), `${JSON.stringify(recipe.key, null, 1)}\n`);
  const result = { name: recipe.name, perplexities, seconds };
  await writeFile(path.join(part, RESULT), `${JSON.stringify(result)}\n`);
  await rename(part, dir);
  const found = Object.entries(perplexities).map(([domain, value]) => `${domain} ${value.toFixed(2)}`);
  console.log(`trained ${recipe.name} in ${seconds.toFixed(0)} s: perplexity ${found.join(', ')}`);
  return result;
}

async function readTrained(dir: string): Promise<Trained | null> {
  try {
    return JSON.parse(await readFile(path.join(dir, RESULT), 'utf8')) as Trained;
  } catch {
    return null;
  }
}

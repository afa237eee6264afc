// How many experts can go? A model of all domains, as it is and fine-tuned on code with and without concentration, is
// pruned by every criterion; perplexity on held-out code.
import type { Batch } from '../../lib/data/loader.js';
import { PRUNE_CRITERIA, pruneExperts, type PruneCriterion } from '../../lib/experts/prune.js';
import { expertUsage, type UsageReport } from '../../lib/experts/usage.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { memoryStats } from '../../lib/system.js';
import { evaluate } from '../../lib/training/evaluate.js';
import { fineTuned, pretrained, prunedAndTuned } from './models.js';
import { obtain, trained, type Model, type Recipe } from './recipes.js';
import { measureRates, type Rates } from './throughput.js';
import { batchesOf, percent, type Workbench } from './workbench.js';

export const FRACTIONS = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875];
/** Of which speed and memory are measured. */
const SPEEDS = [0, 0.5, 0.875];

interface Measured {
  seed: number;
  kind: string;
  criterion: PruneCriterion;
  fraction: number;
  /** The part of all experts that went: K of each router stay. */
  removed: number;
  perplexity: number;
  parameters: number;
  bytesSaved: number;
}

export async function specialise(bench: Workbench) {
  const { scale } = bench;
  const heldOut = bench.heldOut[scale.code] as Batch[];
  const texts = bench.whole(scale.code);
  // Experts are chosen by training text: the held-out text only tells how well that went.
  const seen = await batchesOf(await bench.texts(texts), 'train', scale);
  const results: Measured[] = [];
  const kinds = (seed: number): Record<string, Recipe<ModuleFormerForCausalLM>> => {
    const base = pretrained(bench, seed);
    const training = { texts, steps: scale.fineTuningSteps, lr: scale.lr / 3, seed };
    return {
      'not fine-tuned': base,
      'fine-tuned': fineTuned(bench, base, { ...training, lossWeights: { aux: 0 } }),
      ...Object.fromEntries(
        scale.concentrations.map((concentration) => [
          `concentrated, ${concentration}`,
          fineTuned(bench, base, { ...training, lossWeights: { aux: 0, concentration } }),
        ]),
      ),
    };
  };
  for (const seed of scale.seeds) {
    for (const [kind, recipe] of Object.entries(kinds(seed))) {
      await trained(bench, recipe);
      const model = await obtain(bench, recipe);
      const usage = await expertUsage(model, { [scale.code]: seen }, { outputMass: true });
      for (const criterion of PRUNE_CRITERIA) {
        for (const fraction of FRACTIONS) {
          const pruned = prune(model, { criterion, fraction, usage, seed });
          const { perplexity } = await evaluate(pruned.model, heldOut);
          const { removed, parameters, bytesSaved } = pruned;
          results.push({
            seed,
            kind,
            criterion,
            fraction,
            removed,
            perplexity,
            bytesSaved,
            parameters: parameters.after,
          });
          pruned.model.dispose();
        }
      }
      model.dispose();
    }
  }
  const first = kinds(scale.seeds[0] as number);
  const recovered = await tuneOn(bench, first);
  const speeds = await measurePruned(bench, Object.values(first).at(-1), seen);
  console.table(tableOf(results));
  console.table(recovered);
  console.table(speeds);
  return { domain: scale.code, results, recovered, speeds };
}

/** Of the fine-tuned models but the last: half of all experts gone and half as many steps of fine-tuning after that, without concentration; or none gone. */
async function tuneOn(bench: Workbench, recipes: Record<string, Recipe<ModuleFormerForCausalLM>>) {
  const { scale } = bench;
  const steps = Math.round(scale.fineTuningSteps / 2);
  const training = {
    texts: bench.whole(scale.code),
    steps,
    lr: scale.lr / 3,
    seed: 1,
    lossWeights: { aux: 0 },
  };
  const quality = async (recipe: Recipe): Promise<number> =>
    (await trained(bench, recipe)).perplexities[scale.code] as number;
  const results = [];
  for (const [kind, recipe] of Object.entries(recipes).slice(1, -1)) {
    results.push({
      kind,
      before: await quality(recipe),
      whole: await quality(fineTuned(bench, recipe, training)),
      halved: await quality(prunedAndTuned(bench, recipe, training)),
    });
  }
  return results;
}

function prune(
  model: ModuleFormerForCausalLM,
  {
    criterion,
    fraction,
    usage,
    seed,
  }: { criterion: PruneCriterion; fraction: number; usage: UsageReport; seed: number },
) {
  const amount = { fraction, scope: 'model' } as const;
  const pruned = pruneExperts(model, { criterion, attention: amount, mlp: amount, usage, seed });
  const count = (lists: typeof pruned.kept): number =>
    lists.reduce((sum, { attention, mlp }) => sum + attention.length + mlp.length, 0);
  const [kept, gone] = [count(pruned.kept), count(pruned.removed)];
  return { ...pruned, removed: gone / (kept + gone) };
}

/** Speed and memory of the concentrated model, pruned by frequency. */
async function measurePruned(
  bench: Workbench,
  recipe: Recipe<ModuleFormerForCausalLM> | undefined,
  seen: readonly Batch[],
) {
  if (!recipe) throw new Error('there is no concentrated model');
  const model = await obtain(bench, recipe);
  const usage = await expertUsage(model, { [bench.scale.code]: seen });
  const models = new Map<string, Model>();
  const sizes = SPEEDS.map((fraction) => {
    const before = memoryStats().live;
    const {
      model: pruned,
      removed,
      parameters,
    } = prune(model, { criterion: 'frequency', fraction, usage, seed: 0 });
    models.set(String(fraction), pruned);
    return { fraction, removed, parameters: parameters.after, bytes: memoryStats().live - before };
  });
  model.dispose();
  const rates = await measureRates(models, seen[0] as Batch, bench.scale.rounds);
  for (const pruned of models.values()) pruned.dispose();
  return sizes.map((size) => ({ ...size, ...(rates[String(size.fraction)] as Rates) }));
}

/** Mean change of perplexity over seeds, in percent of that of the model before pruning. */
function tableOf(results: readonly Measured[]) {
  const rows = results.filter(({ fraction, seed }) => fraction === 0 && seed === results[0]?.seed);
  return rows.map(({ kind, criterion, perplexity }) => ({
    model: kind,
    criterion,
    perplexity: perplexity.toFixed(2),
    ...Object.fromEntries(
      FRACTIONS.slice(1).map((part) => [
        `${100 * part} %`,
        changeAt(results, { kind, criterion, fraction: part }).toFixed(1),
      ]),
    ),
  }));
}

/** The mean over seeds of what pruning changes, in percent. */
export function changeAt(
  results: Parameters<typeof changesAt>[0],
  wanted: Parameters<typeof changesAt>[1],
): number {
  const changes = changesAt(results, wanted);
  return changes.reduce((sum, change) => sum + change, 0) / changes.length;
}

/** Likewise for each seed. */
export function changesAt(
  results: readonly Pick<Measured, 'seed' | 'kind' | 'criterion' | 'fraction' | 'perplexity'>[],
  wanted: { kind: string; criterion: string; fraction: number },
): number[] {
  const own = results.filter(({ kind, criterion }) => kind === wanted.kind && criterion === wanted.criterion);
  return own
    .filter(({ fraction }) => fraction === wanted.fraction)
    .map(({ seed, perplexity }) =>
      percent(perplexity, own.find((each) => each.seed === seed && each.fraction === 0)?.perplexity ?? NaN),
    );
}

// Quality for throughput: a ModuleFormer and dense models of several widths after the same tokens. Where would a dense
// model have the same perplexity, and how much slower is it there?
import type { Batch } from '../../lib/data/loader.js';
import type { ModuleFormerConfig } from '../../lib/model/config.js';
import { countParameters } from '../../lib/model/count-parameters.js';
import type { DenseConfig } from '../../lib/model/dense-config.js';
import { denseWidths, pretrained, pretrainedDense } from './models.js';
import { obtain, trained, type Model, type Recipe } from './recipes.js';
import { measureRates, type Rates } from './throughput.js';
import { batchesOf, meanPerplexity, type Workbench } from './workbench.js';

interface Measured extends Rates {
  model: string;
  parameters: number;
  /** Of which a token uses. */
  active: number;
  /** By seed, over the domains. */
  perplexities: Record<number, number>;
}

const denseName = (width: number): string => `dense ${width}`;

export async function efficiency(bench: Workbench) {
  const { scale } = bench;
  const recipes = new Map<string, (seed: number) => Recipe>([
    ['ModuleFormer', (seed) => pretrained(bench, seed)],
    ...denseWidths(scale).map((width): [string, (seed: number) => Recipe] => [
      denseName(width),
      (seed) => pretrainedDense(bench, seed, width),
    ]),
  ]);
  const seedsOf = new Map(denseWidths(scale).map((width) => [denseName(width), scale.dense[width] ?? []]));
  const perplexity = async (recipe: Recipe): Promise<number> =>
    meanPerplexity((await trained(bench, recipe)).perplexities, scale.domains);
  const qualities = new Map<string, Record<number, number>>();
  for (const [name, recipe] of recipes) {
    const found: Record<number, number> = {};
    for (const seed of seedsOf.get(name) ?? scale.seeds) found[seed] = await perplexity(recipe(seed));
    qualities.set(name, found);
  }

  const models = new Map<string, Model>();
  for (const [name, recipe] of recipes)
    models.set(name, await obtain(bench, recipe((seedsOf.get(name) ?? scale.seeds)[0] as number)));
  const [batch] = await batchesOf(await bench.texts(bench.whole(...scale.domains)), 'train', scale);
  const rates = await measureRates(models, batch as Batch, scale.rounds);
  const results = [...models].map(([model, { config }]): Measured => {
    const { total, active } = countParameters(config as ModuleFormerConfig | DenseConfig);
    return {
      model,
      parameters: total,
      active,
      perplexities: qualities.get(model) ?? {},
      ...(rates[model] as Rates),
    };
  });
  for (const model of models.values()) model.dispose();
  const ratios = scale.seeds.map((seed) => ({
    seed,
    ...ratioAtEqualQuality(results, seed),
  }));
  console.table(results.map(({ perplexities, ...rest }) => ({ ...rest, ...perplexities })));
  console.table(ratios);
  return { results, ratios };
}

/**
 * The ModuleFormer's throughput over that of the dense model of equal perplexity, between the two dense models next to
 * it in perplexity, in logarithms. When the ModuleFormer is better than all dense models, the one of equal perplexity
 * would be larger than the best of them, whose ratio is then a lower bound (`atLeast`). Dense models count with the
 * geometric mean of their seeds.
 */
export function ratioAtEqualQuality(results: readonly Measured[], seed: number) {
  const [sparse, ...dense] = results as [Measured, ...Measured[]];
  const wanted = sparse.perplexities[seed] as number;
  const quality = ({ perplexities }: Measured): number =>
    meanPerplexity(perplexities, Object.keys(perplexities));
  const best = dense.reduce((a, b) => (quality(b) < quality(a) ? b : a));
  const nearest = (side: (each: Measured) => boolean): Measured | undefined =>
    dense
      .filter(side)
      .sort((a, b) => Math.abs(quality(a) - wanted) - Math.abs(quality(b) - wanted))
      .at(0);
  const better = nearest((each) => quality(each) < wanted);
  const below = better ?? best;
  const above = better ? (nearest((each) => quality(each) >= wanted) ?? better) : best;
  const distance = Math.log(quality(above) / quality(below));
  const part = distance > 0 ? Math.log(quality(above) / wanted) / distance : 0;
  const at = (field: keyof Rates | 'active'): number => above[field] * (below[field] / above[field]) ** part;
  return {
    atLeast: better === undefined,
    active: at('active') / sparse.active,
    training: sparse.training / at('training'),
    reading: sparse.reading / at('reading'),
    generating: sparse.generating / at('generating'),
  };
}

// Are the models compared on fair terms? Short runs of the ModuleFormer and of dense models with other learning rates and
// another initialisation.
import { denseWidths, pretrained, pretrainedDense, type Change } from './models.js';
import { trained, type Recipe } from './recipes.js';
import { meanPerplexity, type Workbench } from './workbench.js';

const FACTORS = [0.5, 1, 2];
/** What models are usually initialised with. */
const USUAL_RANGE = 0.02;

export async function probes(bench: Workbench) {
  const { scale } = bench;
  const [seed = 0] = scale.seeds;
  const steps = scale.fineTuningSteps;
  const widths = denseWidths(scale).slice(1, 2);
  const models: Record<string, (change: Change) => Recipe> = {
    ModuleFormer: (change) => pretrained(bench, seed, 'mi', change),
    ...Object.fromEntries(
      widths.map((width) => [
        `dense ${width}`,
        (change: Change) => pretrainedDense(bench, seed, width, change),
      ]),
    ),
  };
  const perplexity = async (recipe: Recipe): Promise<number> =>
    meanPerplexity((await trained(bench, recipe)).perplexities, scale.domains);
  const results = [];
  for (const [model, recipe] of Object.entries(models)) {
    const byFactor: Record<number, number> = {};
    for (const lrFactor of FACTORS) byFactor[lrFactor] = await perplexity(recipe({ lrFactor, steps }));
    const usual: { usualRange?: number } =
      model === 'ModuleFormer'
        ? {}
        : { usualRange: await perplexity(recipe({ steps, initializerRange: USUAL_RANGE })) };
    results.push({ model, byFactor, ...usual });
  }
  console.table(results.map(({ byFactor, ...rest }) => ({ ...rest, byFactor: JSON.stringify(byFactor) })));
  return { steps, results };
}

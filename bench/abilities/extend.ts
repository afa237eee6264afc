// Learning a new language without forgetting: everything fine-tuned (with experts, and dense), low-rank adapters of a
// dense model, or new experts alone.
import { copyInto } from '../../lib/autograd/index.js';
import type { Batch } from '../../lib/data/loader.js';
import { expertUsage, type UsageReport } from '../../lib/experts/usage.js';
import { countParameters } from '../../lib/model/count-parameters.js';
import { ModuleFormerConfig } from '../../lib/model/config.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import type { Tensor } from '../../lib/tensor.js';
import { evaluate } from '../../lib/training/evaluate.js';
import { armsOf } from './extension-arms.js';
import { denseOfEqualQuality, TOKEN_TABLES } from './models.js';
import { obtain, trained, type Recipe } from './recipes.js';
import { separability } from './separability.js';
import { meanPerplexity, percent, type Workbench } from './workbench.js';

/** Goes by the name of an arm. */
const SEPARABILITY = 'separability';

interface Measured {
  seed: number;
  model: string;
  group: string;
  /** Geometric means over domains, before and after learning the new one. */
  old: { before: number; after: number };
  new: { before: number; after: number };
  routing?: Routing;
}

/** What a model with new experts does with its rows after training; means over routers and domains. */
interface Routing {
  /** Of old text, the part that goes to new experts. */
  oldInNew: number;
  /** Of new text, likewise. */
  newInNew: number;
  /** Perplexity on old text when new experts are out of reach, as with a router that knows what is old. */
  oldWithoutNew: number;
}

export async function extend(bench: Workbench) {
  const { scale } = bench;
  const width = await denseOfEqualQuality(bench);
  const size = newExpertSize(bench);
  const results: Measured[] = [];
  for (const seed of scale.seeds) {
    const arms = armsOf(bench, { seed, width, size });
    for (const [model, { group, from, recipe, extends: isExtended }] of Object.entries(arms)) {
      if (!bench.arms.test(model)) continue;
      const quality = async (one: Recipe) => {
        const { perplexities } = await trained(bench, one);
        return {
          old: meanPerplexity(perplexities, scale.domains),
          new: meanPerplexity(perplexities, [scale.newDomain]),
        };
      };
      const [before, after] = [await quality(from), await quality(recipe)];
      results.push({
        seed,
        model,
        group,
        old: { before: before.old, after: after.old },
        new: { before: before.new, after: after.new },
        ...(isExtended ? { routing: await routingOf(bench, from, recipe) } : {}),
      });
    }
  }
  console.table(
    results.map((each) => ({
      seed: each.seed,
      model: each.model,
      [`perplexity on ${scale.domains.join(', ')}`]: arrow(each.old),
      [`on ${scale.newDomain}`]: arrow(each.new),
      'old text in new experts': each.routing?.oldInNew.toFixed(4) ?? '',
      'new text': each.routing?.newInNew.toFixed(4) ?? '',
      'old domains without them': each.routing?.oldWithoutNew.toFixed(2) ?? '',
    })),
  );
  /** Of the base with the first seed. */
  const recognised = bench.arms.test(SEPARABILITY) ? await separability(bench, scale.seeds[0] as number) : [];
  console.table(recognised);
  return { new: scale.newDomain, denseWidth: width, trainedParameters: size, results, recognised };
}

const arrow = ({ before, after }: { before: number; after: number }): string =>
  `${before.toFixed(2)} -> ${after.toFixed(2)} (${percent(after, before).toFixed(1)} %)`;

/** Parameters of the new experts and their rows of the routers. */
function newExpertSize({ scale }: Workbench): number {
  const config = new ModuleFormerConfig(scale.model);
  const larger = new ModuleFormerConfig({
    ...scale.model,
    n_att_experts: (config.attentionExperts[0] as number) + scale.newExperts.attention,
    n_mlp_experts: (config.mlpExperts[0] as number) + scale.newExperts.mlp,
  });
  return countParameters(larger).total - countParameters(config).total;
}

async function routingOf(bench: Workbench, from: Recipe, recipe: Recipe): Promise<Routing> {
  const { domains, newDomain } = bench.scale;
  const model = (await obtain(bench, recipe)) as ModuleFormerForCausalLM;
  const { domains: used }: UsageReport = await expertUsage(model, bench.heldOut);
  const { attentionExperts, mlpExperts } = new ModuleFormerConfig(bench.scale.model);
  const partInNew = (chosen: readonly string[]): number =>
    mean(
      used
        .filter(({ name }) => chosen.includes(name))
        .flatMap(({ blocks }) =>
          blocks.flatMap(({ attention, mlp }, block) => [
            sum(attention.choices.slice(attentionExperts[block])) / sum(attention.choices),
            sum(mlp.choices.slice(mlpExperts[block])) / sum(mlp.choices),
          ]),
        ),
    );
  const without = await obtain(bench, from);
  const trained = new Map(model.namedParameters());
  for (const [name, table] of without.namedParameters())
    if (TOKEN_TABLES.test(name)) copyInto(table, trained.get(name) as Tensor);
  const perplexities: Record<string, number> = {};
  for (const name of domains) {
    perplexities[name] = (await evaluate(without, bench.heldOut[name] as Batch[])).perplexity;
  }
  for (const each of [model, without]) each.dispose();
  return {
    oldInNew: partInNew(domains),
    newInNew: partInNew([newDomain]),
    oldWithoutNew: meanPerplexity(perplexities, domains),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

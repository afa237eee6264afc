// Learning a new language without forgetting: everything fine-tuned (with experts, and dense), low-rank adapters of a
// dense model, or new experts alone.
import { expertUsage, type UsageReport } from '../../lib/experts/usage.js';
import { countParameters } from '../../lib/model/count-parameters.js';
import { ModuleFormerConfig } from '../../lib/model/config.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import {
  denseOfEqualQuality,
  fineTuned,
  pretrained,
  pretrainedDense,
  withLora,
  withNewExperts,
  type Extension,
  type NewExpertsTraining,
} from './models.js';
import { obtain, trained, type Recipe } from './recipes.js';
import { meanPerplexity, percent, type Workbench } from './workbench.js';

/** One part in this many of the text with rehearsal is old. */
const REHEARSAL = 8;

interface Measured {
  seed: number;
  model: string;
  /** Geometric means over domains, before and after learning the new one. */
  old: { before: number; after: number };
  new: { before: number; after: number };
  /** Of the rows of old text, the part that went to new experts after training. */
  oldTextInNewExperts?: number;
}

export async function extend(bench: Workbench) {
  const { scale } = bench;
  const width = await denseOfEqualQuality(bench);
  const size = newExpertSize(bench);
  const results: Measured[] = [];
  for (const seed of scale.seeds) {
    const base = pretrained(bench, seed);
    const dense = pretrainedDense(bench, seed, width);
    const arms = armsOf(bench, { seed, base, dense, size });
    for (const [model, { from, recipe, extended }] of Object.entries(arms)) {
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
        old: { before: before.old, after: after.old },
        new: { before: before.new, after: after.new },
        ...(extended ? { oldTextInNewExperts: await partInNewExperts(bench, extended) } : {}),
      });
    }
  }
  console.table(
    results.map((each) => ({
      seed: each.seed,
      model: each.model,
      [`perplexity on ${scale.domains.join(', ')}`]: arrow(each.old),
      [`on ${scale.newDomain}`]: arrow(each.new),
      'old text in new experts': each.oldTextInNewExperts?.toFixed(4) ?? '',
    })),
  );
  return { new: scale.newDomain, denseWidth: width, trainedParameters: size, results };
}

const arrow = ({ before, after }: { before: number; after: number }): string =>
  `${before.toFixed(2)} -> ${after.toFixed(2)} (${percent(after, before).toFixed(1)} %)`;

interface Arm {
  from: Recipe;
  recipe: Recipe;
  /** The recipe once more where it has new experts. */
  extended?: Recipe<ModuleFormerForCausalLM>;
}

interface Bases {
  seed: number;
  base: Recipe<ModuleFormerForCausalLM>;
  dense: ReturnType<typeof pretrainedDense>;
  size: number;
}

function armsOf(bench: Workbench, { seed, base, dense, size }: Bases): Record<string, Arm> {
  const { scale } = bench;
  const texts = bench.whole(scale.newDomain);
  const share = (parts: number) =>
    scale.domains.map((domain) => ({
      domain,
      bytes: Math.round(scale.bytes / parts / scale.domains.length),
    }));
  const [old, equal] = [share(REHEARSAL), share(1)];
  const { attention, mlp } = scale.newExperts;
  const steps = scale.fineTuningSteps;
  const whole = { texts, steps, lr: scale.lr / 3, seed };
  const alone = { texts, steps, lr: scale.lr, seed, lossWeights: { aux: 0 } };
  const newExperts = (own: Partial<NewExpertsTraining>, extension: Partial<Extension> = {}): Arm => {
    const training = { ...alone, routerDecay: 1, memory: 0, ...own };
    const recipe = withNewExperts(
      bench,
      base,
      { experts: scale.newExperts, tokens: false, ...extension },
      training,
    );
    return { from: base, recipe, extended: recipe };
  };
  const ofDense: Record<string, Arm> = {
    'dense, all fine-tuned': { from: dense, recipe: fineTuned(bench, dense, whole) },
    'dense, low-rank adapters': { from: dense, recipe: withLora(bench, dense, alone, size) },
    'dense, low-rank adapters, a third of the learning rate': {
      from: dense,
      recipe: withLora(bench, dense, { ...alone, lr: whole.lr }, size),
    },
  };
  const twice = { experts: { attention: 2 * attention, mlp: 2 * mlp }, tokens: true };
  const half = { texts: [...texts, ...equal], steps: 2 * steps };
  const remedies: Record<string, Arm> = {
    'new experts alone, router decay 30': newExperts({ routerDecay: 30 }),
    'new experts alone, router memory': newExperts({ memory: 1 }),
    [`new experts alone, 1 in ${REHEARSAL} tokens of old text`]: newExperts({ texts: [...texts, ...old] }),
    'new experts and rows of new tokens': newExperts({}, { tokens: true }),
    'twice the new experts, rows of new tokens, half of the tokens old text, router memory': newExperts(
      { ...half, memory: 1 },
      twice,
    ),
  };
  return {
    'experts, all fine-tuned': { from: base, recipe: fineTuned(bench, base, whole) },
    ...(scale.denseSeeds.includes(seed) ? ofDense : {}),
    'new experts alone': newExperts({}),
    ...(seed === scale.seeds[0] ? remedies : {}),
    'new experts and rows of new tokens, router memory': newExperts({ memory: 1 }, { tokens: true }),
    'twice the new experts, rows of new tokens, half of the tokens old text': newExperts(half, twice),
  };
}

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

/** The mean over routers and old domains of the rows that go to new experts. */
async function partInNewExperts(bench: Workbench, recipe: Recipe<ModuleFormerForCausalLM>): Promise<number> {
  const { attentionExperts, mlpExperts } = new ModuleFormerConfig(bench.scale.model);
  const model = await obtain(bench, recipe);
  const text = Object.fromEntries(bench.scale.domains.map((name) => [name, bench.heldOut[name] ?? []]));
  const { domains }: UsageReport = await expertUsage(model, text);
  model.dispose();
  const parts = domains.flatMap(({ blocks }) =>
    blocks.flatMap(({ attention, mlp }, block) => [
      sum(attention.choices.slice(attentionExperts[block])) / sum(attention.choices),
      sum(mlp.choices.slice(mlpExperts[block])) / sum(mlp.choices),
    ]),
  );
  return sum(parts) / parts.length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

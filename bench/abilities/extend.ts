// Learning a new language without forgetting: everything fine-tuned (with experts, and dense), or new experts alone.
import type { TextDataset } from '../../lib/data/dataset.js';
import { extendExperts, newExpertGroups } from '../../lib/experts/extend.js';
import { expertUsage, type UsageReport } from '../../lib/experts/usage.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import {
  copyOf,
  meanPerplexity,
  newDense,
  newModel,
  perplexities,
  train,
  type Workbench,
} from './workbench.js';

const NEW = 'german';
/** For new experts alone: the decay of their rows of the routers, and whether the old domains are read again besides. */
const VARIANTS = [
  { routerDecay: 0, rehearsal: false },
  { routerDecay: 1, rehearsal: false },
  { routerDecay: 30, rehearsal: false },
  { routerDecay: 1, rehearsal: true },
] as const;

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
  const old = scale.domains.filter((domain) => domain !== NEW);
  const dataset = bench.datasets.get(NEW) as TextDataset;
  const mixture = await bench.mixture(old);
  const results: Measured[] = [];
  const measure = async (model: Parameters<typeof perplexities>[0]) => {
    const found = await perplexities(model, bench);
    return { old: meanPerplexity(found, old), new: meanPerplexity(found, [NEW]) };
  };
  for (const seed of scale.seeds) {
    const base = newModel(bench, seed);
    const dense = newDense(bench, seed, scale.denseWidth);
    for (const model of [base, dense]) await train(model, mixture, bench, { steps: scale.steps, seed });
    const tune = { steps: scale.fineTuningSteps, seed, lr: scale.lr / 3 };
    const record = (
      model: string,
      before: Awaited<ReturnType<typeof measure>>,
      after: typeof before,
    ): Measured => ({
      seed,
      model,
      old: { before: before.old, after: after.old },
      new: { before: before.new, after: after.new },
    });
    const before = await measure(base);
    for (const { routerDecay, rehearsal } of VARIANTS) {
      const extended = extendExperts(base, { ...scale.newExperts, seed });
      const groups = newExpertGroups(extended, { weightDecay: 0.1, routerDecay });
      const steps = rehearsal ? scale.domains.length * tune.steps : tune.steps; // of the new language, as many
      const texts = rehearsal ? await bench.mixture(scale.domains) : dataset;
      await train(extended, texts, bench, { seed, steps, lr: scale.lr, groups, lossWeights: { aux: 0 } });
      const usage = await expertUsage(
        extended,
        Object.fromEntries(old.map((name) => [name, bench.heldOut[name] ?? []])),
      );
      results.push({
        ...record(
          `new experts alone, router decay ${routerDecay}${rehearsal ? ', rehearsal' : ''}`,
          before,
          await measure(extended),
        ),
        oldTextInNewExperts: partInNewExperts(usage, base),
      });
      extended.dispose();
    }
    const whole = copyOf(base);
    await train(whole, dataset, bench, tune);
    results.push(record('experts, all fine-tuned', before, await measure(whole)));
    const denseBefore = await measure(dense);
    await train(dense, dataset, bench, tune);
    results.push(record('dense, all fine-tuned', denseBefore, await measure(dense)));
    for (const model of [base, dense, whole]) model.dispose();
  }
  const arrow = ({ before, after }: { before: number; after: number }): string =>
    `${before.toFixed(1)} -> ${after.toFixed(1)} (${(100 * (after / before - 1)).toFixed(1)} %)`;
  console.table(
    results.map((each) => ({
      seed: each.seed,
      model: each.model,
      [`perplexity on ${old.join(', ')}`]: arrow(each.old),
      [`on ${NEW}`]: arrow(each.new),
      'old text in new experts': each.oldTextInNewExperts?.toFixed(3) ?? '',
    })),
  );
  return { old, new: NEW, results };
}

/** The mean over routers and domains of the rows that go to experts that the base lacks. */
function partInNewExperts({ domains }: UsageReport, { config }: ModuleFormerForCausalLM): number {
  const parts = domains.flatMap(({ blocks }) =>
    blocks.flatMap(({ attention, mlp }, block) =>
      [
        { choices: attention.choices, first: config.attentionExperts[block] },
        { choices: mlp.choices, first: config.mlpExperts[block] },
      ].map(({ choices, first }) => sum(choices.slice(first)) / sum(choices)),
    ),
  );
  return sum(parts) / parts.length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

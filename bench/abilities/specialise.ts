// How many experts can go? A model of all domains, as it is and fine-tuned on code with and without concentration, is
// pruned by every criterion; perplexity on held-out code.
import { PRUNE_CRITERIA, pruneExperts, type PruneCriterion } from '../../lib/experts/prune.js';
import { expertUsage } from '../../lib/experts/usage.js';
import { DataLoader, type Batch } from '../../lib/data/loader.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { evaluate } from '../../lib/training/evaluate.js';
import { copyOf, newModel, train, type Workbench } from './workbench.js';

const DOMAIN = 'go';
const FRACTIONS = [0, 0.25, 0.5, 0.75, 0.875];
const CONCENTRATION = 0.05;

interface Measured {
  seed: number;
  kind: string;
  criterion: PruneCriterion;
  fraction: number;
  perplexity: number;
  bytesSaved: number;
  parameters: number;
  tokensPerSecond: number;
}

export async function specialise(bench: Workbench) {
  const { scale, heldOut } = bench;
  const dataset = bench.datasets.get(DOMAIN);
  if (!dataset) throw new Error(`specialise: the domain ${DOMAIN} is missing`);
  const measured = heldOut[DOMAIN] as Batch[];
  // Experts are chosen by training text: the held-out text only tells how well that went.
  const { batchSize, sequenceLength } = scale;
  const seen: Batch[] = [];
  for await (const batch of new DataLoader({ dataset, batchSize, sequenceLength, seed: 1 })) {
    seen.push(batch);
    if (seen.length * batchSize * sequenceLength >= scale.heldOut) break;
  }
  const results: Measured[] = [];
  for (const seed of scale.seeds) {
    const base = newModel(bench, seed);
    await train(base, await bench.mixture(scale.domains), bench, { steps: scale.steps, seed });
    const tuned = async (concentration: number): Promise<ModuleFormerForCausalLM> => {
      const model = copyOf(base);
      const lossWeights = { aux: 0, concentration };
      await train(model, dataset, bench, {
        steps: scale.fineTuningSteps,
        seed,
        lr: scale.lr / 3,
        lossWeights,
      });
      return model;
    };
    const models = {
      'not fine-tuned': base,
      'fine-tuned': await tuned(0),
      concentrated: await tuned(CONCENTRATION),
    };
    for (const [kind, model] of Object.entries(models)) {
      const usage = await expertUsage(model, { [DOMAIN]: seen }, { outputMass: true });
      for (const criterion of PRUNE_CRITERIA) {
        for (const fraction of FRACTIONS) {
          const amount = { fraction, scope: 'model' } as const;
          const pruned = pruneExperts(model, { criterion, attention: amount, mlp: amount, usage, seed });
          const start = performance.now();
          const { perplexity, tokens } = await evaluate(pruned.model, measured);
          const tokensPerSecond = (1000 * tokens) / (performance.now() - start);
          const { bytesSaved, parameters } = pruned;
          results.push({
            seed,
            kind,
            criterion,
            fraction,
            perplexity,
            bytesSaved,
            parameters: parameters.after,
            tokensPerSecond,
          });
          pruned.model.dispose();
        }
      }
    }
    for (const model of Object.values(models)) model.dispose();
  }
  const table = results.filter(({ seed, fraction }) => seed === scale.seeds[0] && fraction === 0);
  console.table(
    table.map(({ kind, criterion }) => ({
      model: kind,
      criterion,
      ...Object.fromEntries(
        FRACTIONS.map((part) => {
          const found = results.find(
            (each) => each.kind === kind && each.criterion === criterion && each.fraction === part,
          );
          return [`${100 * part} %`, found?.perplexity.toFixed(2)];
        }),
      ),
    })),
  );
  return { domain: DOMAIN, concentration: CONCENTRATION, results };
}

// Quality for throughput: a ModuleFormer and dense models of several widths after the same tokens. Where would a dense
// model have the same perplexity, and how much slower is it there?
import { noGrad } from '../../lib/autograd/index.js';
import type { Batch } from '../../lib/data/loader.js';
import type { CausalLM, CausalLMConfig } from '../../lib/model/causal-lm.js';
import type { ModuleFormerConfig } from '../../lib/model/config.js';
import { countParameters } from '../../lib/model/count-parameters.js';
import type { DenseConfig } from '../../lib/model/dense-config.js';
import { scope } from '../../lib/scope.js';
import { batchInputs } from '../../lib/training/batch.js';
import { meanPerplexity, newDense, newModel, perplexities, train, type Workbench } from './workbench.js';

interface Measured {
  seed: number;
  model: string;
  perplexity: number;
  parameters: number;
  active: number;
  /** Tokens per second. */
  training: number;
  inference: number;
}

export async function efficiency(bench: Workbench) {
  const { scale } = bench;
  const dataset = await bench.mixture(scale.domains);
  const results: Measured[] = [];
  for (const seed of scale.seeds) {
    const models: [string, () => CausalLM<CausalLMConfig>][] = [
      ['ModuleFormer', () => newModel(bench, seed)],
      ...scale.denseWidths.map((width): [string, () => CausalLM<CausalLMConfig>] => [
        `dense ${width}`,
        () => newDense(bench, seed, width),
      ]),
    ];
    for (const [name, make] of models) {
      const model = make();
      const training = await train(model, dataset, bench, { steps: scale.steps, seed });
      const { total, active } = countParameters(model.config as ModuleFormerConfig | DenseConfig);
      results.push({
        seed,
        model: name,
        perplexity: meanPerplexity(await perplexities(model, bench), scale.domains),
        parameters: total,
        active,
        training,
        inference: await inferenceRate(model, Object.values(bench.heldOut).flat()),
      });
      model.dispose();
    }
  }
  console.table(results.filter(({ seed }) => seed === scale.seeds[0]));
  const ratios = scale.seeds.map((seed) => ratioAtEqualQuality(results.filter((each) => each.seed === seed)));
  console.table(ratios);
  return { results, ratios };
}

/** Tokens per second of reading, with the logits of the last positions only; the median of five times. */
async function inferenceRate(model: CausalLM<CausalLMConfig>, batches: readonly Batch[]): Promise<number> {
  const rates: number[] = [];
  for (let repeat = 0; repeat < 5; repeat++) {
    const start = performance.now();
    let tokens = 0;
    for (const batch of batches) {
      const logits = scope(() =>
        noGrad(
          () =>
            model.forward({ inputIds: batchInputs(batch, model.device).inputIds, lastLogitsOnly: true })
              .logits,
        ),
      );
      await logits?.data();
      logits?.dispose();
      tokens += batch.inputIds.length;
    }
    rates.push((1000 * tokens) / (performance.now() - start));
  }
  return rates.sort((a, b) => a - b)[2] as number;
}

/**
 * The ModuleFormer's throughput over that of the dense model of equal perplexity, between the two dense models next to
 * it in perplexity, in logarithms. Null when all dense models are better, or all worse: then only a bound is known.
 */
function ratioAtEqualQuality(results: readonly Measured[]) {
  const [sparse, ...dense] = results as [Measured, ...Measured[]];
  const sorted = [...dense].sort((a, b) => b.perplexity - a.perplexity);
  const above = sorted.findLast(({ perplexity }) => perplexity >= sparse.perplexity);
  const below = sorted.find(({ perplexity }) => perplexity < sparse.perplexity);
  if (!above || !below) {
    return { seed: sparse.seed, activeParameters: null, training: null, inference: null };
  }
  const part = Math.log(above.perplexity / sparse.perplexity) / Math.log(above.perplexity / below.perplexity);
  const at = (field: 'training' | 'inference' | 'active'): number =>
    above[field] * (below[field] / above[field]) ** part;
  return {
    seed: sparse.seed,
    activeParameters: at('active') / sparse.active,
    training: sparse.training / at('training'),
    inference: sparse.inference / at('inference'),
  };
}

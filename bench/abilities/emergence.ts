// Do experts come to belong to domains when the text is a mixture without labels? One model for each way of balancing.
import { expertUsage, type RouterUsage } from '../../lib/experts/usage.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { ModuleFormerForCausalLM as NewModel } from '../../lib/model/moduleformer.js';
import { BALANCING, pretrained, type Balancing } from './models.js';
import { obtain, trained } from './recipes.js';
import { meanPerplexity, type Workbench } from './workbench.js';

export async function emergence(bench: Workbench) {
  const { scale } = bench;
  const heldOut = Object.fromEntries(scale.domains.map((domain) => [domain, bench.heldOut[domain] ?? []]));
  const inspect = async (model: ModuleFormerForCausalLM) => {
    const { domainInformation, domains } = await expertUsage(model, heldOut);
    const entropies = (kind: 'attention' | 'mlp', field: 'marginalEntropy' | 'conditionalEntropy') =>
      model.config.mlpExperts.map((_, block) => {
        const values = domains.map(({ blocks }) => (blocks[block]?.[kind] as RouterUsage)[field]);
        return values.reduce((total, value) => total + value, 0) / values.length;
      });
    return {
      domainInformation,
      /** Means over domains, by block. */
      marginalEntropy: entropies('mlp', 'marginalEntropy'),
      conditionalEntropy: entropies('mlp', 'conditionalEntropy'),
    };
  };
  const results = [];
  for (const seed of scale.seeds) {
    for (const balancing of Object.keys(BALANCING) as Balancing[]) {
      const recipe = pretrained(bench, seed, balancing);
      const { perplexities } = await trained(bench, recipe);
      const model = await obtain(bench, recipe);
      const untrained = new NewModel(model.config, { seed });
      results.push({
        seed,
        balancing,
        perplexity: meanPerplexity(perplexities, scale.domains),
        perplexities,
        ...(await inspect(model)),
        untrained: (await inspect(untrained)).domainInformation,
      });
      model.dispose();
      untrained.dispose();
    }
  }
  console.table(
    results.map(({ seed, balancing, perplexity, domainInformation, untrained }) => ({
      seed,
      balancing,
      perplexity: perplexity.toFixed(2),
      'I(MLP expert; domain) by block': domainInformation.map(({ mlp }) => mlp.toFixed(3)).join(' '),
      'of attention experts': domainInformation.map(({ attention }) => attention.toFixed(3)).join(' '),
      'MLP, before training': untrained.map(({ mlp }) => mlp.toFixed(3)).join(' '),
    })),
  );
  /** In nats, at most the log of the number of domains. */
  return { mostInformation: Math.log(scale.domains.length), results };
}

// Do experts come to belong to domains when the text is a mixture without labels? One model for each way of balancing.
import { expertUsage } from '../../lib/experts/usage.js';
import { newModel, perplexities, train, type Workbench } from './workbench.js';

const BALANCING = {
  mi: { aux_loss_type: 'mi', aux_loss_weight: 0.01 },
  switch: { aux_loss_type: 'switch', aux_loss_weight: 0.01 },
  none: { aux_loss_weight: 0 },
} as const;

export async function emergence(bench: Workbench) {
  const { scale, heldOut } = bench;
  const dataset = await bench.mixture(scale.domains);
  const results = [];
  for (const seed of scale.seeds) {
    for (const [balancing, fields] of Object.entries(BALANCING)) {
      const model = newModel(bench, seed, fields);
      const before = await expertUsage(model, heldOut);
      const tokensPerSecond = await train(model, dataset, bench, { steps: scale.steps, seed });
      const { domainInformation, domains } = await expertUsage(model, heldOut);
      const balance = domains.map(({ name, blocks }) => ({
        name,
        marginalEntropy: blocks.map(({ attention, mlp }) => [attention.marginalEntropy, mlp.marginalEntropy]),
      }));
      results.push({
        seed,
        balancing,
        perplexities: await perplexities(model, bench),
        /** In nats, at most the log of the number of domains. */
        domainInformation,
        untrained: before.domainInformation,
        balance,
        tokensPerSecond,
      });
      model.dispose();
    }
  }
  console.table(
    results.map(({ seed, balancing, perplexities: found, domainInformation, untrained }) => ({
      seed,
      balancing,
      ...Object.fromEntries(Object.entries(found).map(([name, value]) => [name, value.toFixed(1)])),
      'I(expert; domain) by block': domainInformation.map(({ mlp }) => mlp.toFixed(3)).join(' '),
      'before training': untrained.map(({ mlp }) => mlp.toFixed(3)).join(' '),
    })),
  );
  return { mostInformation: Math.log(scale.domains.length), results };
}

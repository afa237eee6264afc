import { join } from 'node:path';
import test from 'ava';
import { ConfigError } from '../lib/errors.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { ModuleFormerForSequenceClassification } from '../lib/model/sequence-classification.js';
import { numbers } from './support/compare.js';
import { temporaryDirectory } from './support/files.js';
import { inputIds, labelled, makeModel, tiny } from './support/models.js';

const uneven = { n_att_experts: [2, 5], n_mlp_experts: [6, 3] } satisfies ModuleFormerConfigInit;
const GATES = ['mlp', 'linear', 'gmm'] as const;

test('a list has one number for each block, and K is at most each of them', (t) => {
  const bad: [ModuleFormerConfigInit, RegExp][] = [
    [{ n_att_experts: [4, 4, 4] }, /n_att_experts has 3 numbers, expected one for each of the n_layer \(2\)/],
    [{ n_mlp_experts: [4, 1] }, /k_mlp \(2\) must be at most n_mlp_experts of block 1 \(1\)/],
    [{ n_att_experts: [1, 1] }, /k_att \(2\).*block 0 \(1\).*k_att \(2\).*block 1 \(1\)/],
    [{ n_mlp_experts: [] }, /n_mlp_experts: expected a positive integer, or a list with one for each block/],
    [{ n_mlp_experts: [4, 2.5] }, /n_mlp_experts: expected a positive integer, or a list .* got \[4,2\.5\]/],
    [{ n_mlp_experts: 2.5 }, /n_mlp_experts: expected a positive integer, or a list/],
    [{ n_mlp_experts: 'many' as never }, /n_mlp_experts: expected a positive integer, or a list/],
  ];
  for (const [fields, message] of bad) {
    t.throws(() => new ModuleFormerConfig({ ...tiny, ...fields }), { instanceOf: ConfigError, message });
  }
  const config = new ModuleFormerConfig({ ...tiny, ...uneven });
  t.deepEqual(config.attentionExperts, [2, 5]);
  t.deepEqual(new ModuleFormerConfig(tiny).mlpExperts, [5, 5]);
  t.deepEqual(new ModuleFormerConfig(config.toJSON()).toJSON(), config.toJSON());
});

test('a list of equal numbers is the same model as that number', (t) => {
  for (const gate_type of GATES) {
    const fields = { ...tiny, gate_type };
    const list = new ModuleFormerConfig({ ...fields, n_att_experts: [4, 4], n_mlp_experts: [5, 5] });
    t.deepEqual(countParameters(list), countParameters(new ModuleFormerConfig(fields)));
  }
});

for (const gate_type of GATES) {
  test(`blocks with different numbers of experts run, count, save and load: ${gate_type}`, async (t) => {
    const model = await makeModel({ ...uneven, gate_type });
    const parameters = [...model.parameters()].reduce((sum, { numel }) => sum + numel, 0);
    t.is(countParameters(model.config).total, parameters);
    const even = countParameters(new ModuleFormerConfig({ ...tiny, gate_type }));
    const { active } = countParameters(model.config);
    // K is the same, so only the routers' rows differ: 7 of attention instead of 8, 9 of the MLP instead of 10.
    t.is(even.active - active, 2 * (gate_type === 'linear' ? tiny.n_embd : tiny.gating_size));

    const out = model.forward(labelled);
    t.deepEqual(
      out.routing?.map(({ attention, mlp }) => [attention.numExperts, mlp.numExperts]),
      [
        [2, 6],
        [5, 3],
      ],
    );
    const dir = join(await temporaryDirectory(t), 'model');
    await model.savePretrained(dir);
    const loaded = await ModuleFormerForCausalLM.fromPretrained(dir);
    t.deepEqual(loaded.config.n_mlp_experts, [6, 3]);
    t.deepEqual(await numbers(loaded.forward(labelled).logits as never), await numbers(out.logits as never));
    t.deepEqual(
      await loaded.generate({ inputIds: [[1, 2, 3]], maxNewTokens: 4, temperature: 0 }),
      await model.generate({ inputIds: [[1, 2, 3]], maxNewTokens: 4, temperature: 0 }),
    );
    const classifier = await ModuleFormerForSequenceClassification.fromPretrained(dir, {
      newHead: { numLabels: 2 },
    });
    t.deepEqual(classifier.forward({ inputIds }).logits.shape, [2, 2]);
  });
}

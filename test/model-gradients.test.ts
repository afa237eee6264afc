import test from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import type { CausalLMInputs } from '../lib/model/causal-lm.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { ModuleFormerForSequenceClassification } from '../lib/model/sequence-classification.js';
import type { Tensor } from '../lib/tensor.js';
import { checkGradients, shake } from './support/gradient-check.js';
import { denseKinds, labelled, leftPadded, makeDense, makeModel, rows, tiny } from './support/models.js';

const gradientCases: Record<
  string,
  { fields: ModuleFormerConfigInit; inputs?: CausalLMInputs; train?: true }
> = {
  'mlp gate, mutual information': { fields: {} },
  'linear gate, switch loss, K = 1 and 3': {
    fields: { gate_type: 'linear', aux_loss_type: 'switch', k_att: 1, k_mlp: 3 },
  },
  'gmm gate, K = 3 and 1, silu': {
    fields: { gate_type: 'gmm', k_att: 3, k_mlp: 1, activation_function: 'silu' },
  },
  'gmm gate, switch loss, K = E': {
    fields: { gate_type: 'gmm', aux_loss_type: 'switch', k_att: 4, k_mlp: 5, activation_function: 'gelu' },
  },
  'keys and values that are the identity': { fields: { n_head: 1, att_hidden: 8 } },
  'both switches of the attention': { fields: { attend_current: false, attend_remainder: true } },
  'padding on the left, left out of the routers': {
    fields: { gate_type: 'gmm', aux_loss_type: 'switch' },
    inputs: { ...leftPadded, ignorePadding: true },
  },
  'packed documents, without logits': {
    fields: { attend_remainder: true },
    inputs: { ...labelled, documentStarts: [0, 1].map(() => [0, 0, 0, 3, 3, 5, 5]), outputLogits: false },
  },
  'every dropout': { fields: { embd_pdrop: 0.2, resid_pdrop: 0.3, moe_pdrop: 0.25 }, train: true },
  'sampled experts': { fields: { sample_topk: 1, k_mlp: 3 }, train: true },
};

for (const [name, { fields, inputs = labelled, train }] of Object.entries(gradientCases)) {
  for (const checkpointing of [false, true]) {
    test(`gradients of a whole model: ${name}${checkpointing ? ', recomputed' : ''}`, async (t) => {
      using model = await makeModel(fields);
      model.lossWeights.concentration = 0.07;
      model.lossWeights.z = 0.05;
      model.train(train === true);
      model.gradientCheckpointing = checkpointing;
      await checkGradients(t, model, () => {
        model.forwardCount = 3; // the same random numbers each time
        return model.forward(inputs).loss as Tensor;
      });
    });
  }
}

test('gradients with imposed experts', async (t) => {
  using model = await makeModel();
  const { routing } = noGrad(() => model.forward({ inputIds: rows(2, 7, 99) }));
  t.truthy(routing);
  await checkGradients(t, model, () => model.forward({ ...labelled, routing: routing ?? [] }).loss as Tensor);
});

for (const [name, fields] of Object.entries(denseKinds)) {
  test(`gradients of a whole dense model: ${name}`, async (t) => {
    using model = await makeDense(fields);
    await checkGradients(t, model, () => model.forward(leftPadded).loss as Tensor);
  });
}

test('gradients of a dense model with dropout', async (t) => {
  using model = await makeDense({ resid_pdrop: 0.3, embd_pdrop: 0.2 });
  model.train();
  await checkGradients(t, model, () => {
    model.forwardCount = 3;
    return model.forward(labelled).loss as Tensor;
  });
});

for (const [type, labels] of Object.entries({
  regression: [
    [0.3, -1, 2],
    [0.1, 0, -0.5],
  ],
  single_label_classification: [2, 0],
  multi_label_classification: [
    [1, 0, 1],
    [0, 0, 1],
  ],
} as const)) {
  test(`gradients of a classifier: ${type}`, async (t) => {
    const config = new ModuleFormerConfig({
      ...tiny,
      num_labels: 3,
      pad_token_id: 0,
      problem_type: type as 'regression',
    });
    using model = new ModuleFormerForSequenceClassification(config, { dtype: 'f64', seed: 2 });
    await shake(model);
    const padded = [[...rows(1, 5)[0]!.map((id) => id || 1), 0, 0], rows(1, 7, 8)[0]!.map((id) => id || 1)];
    const inputs = { inputIds: padded, labels };
    await checkGradients(t, model, () => model.forward(inputs).loss as Tensor);
  });
}

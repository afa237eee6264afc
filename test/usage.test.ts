import test from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import { DataError, ValueError } from '../lib/errors.js';
import { domainInformation, entropy } from '../lib/experts/information.js';
import { expertUsage, tokenExperts, type UsageReport } from '../lib/experts/usage.js';
import { scope } from '../lib/scope.js';
import { textMask } from '../lib/training/batch.js';
import { numbers } from './support/compare.js';
import { collect, letterBatches, letterModel } from './support/experts.js';

const isEarly = (letter: string): boolean => letter < 'm';
const isLate = (letter: string): boolean => !isEarly(letter);

function only<T>(items: readonly T[]): T {
  if (items.length !== 1) throw new Error(`${items.length} items, expected one`);
  return items[0] as T;
}

test('entropy and information of simple distributions', (t) => {
  t.is(entropy([]), 0);
  t.is(entropy([0, 0]), 0);
  t.is(entropy([3, 0]), 0);
  t.true(Math.abs(entropy([5, 5, 5, 5]) - Math.log(4)) < 1e-12);
  t.is(domainInformation([[1, 2, 3]]), 0);
  t.true(
    domainInformation([
      [1, 2, 3],
      [10, 20, 30],
    ]) < 1e-12,
  );
  t.true(
    Math.abs(
      domainInformation([
        [9, 0],
        [0, 1],
      ]) - Math.log(2),
    ) < 1e-12,
  );
  t.is(
    domainInformation([
      [9, 0],
      [0, 0],
    ]),
    0,
  );
});

test('padding is told from text', async (t) => {
  const batch = only(await collect(['abcdefgh', 'xyz']));
  // 8 letters, EOS, 3 letters, EOS: one row of 13 tokens.
  t.deepEqual([...textMask(batch)], [...Array<number>(13).fill(1), 0, 0, 0]);
  const full = only(await collect(['a'.repeat(15)]));
  t.deepEqual([...textMask(full)], Array<number>(16).fill(1));
});

test('usage is what the routers chose, each token of text once', async (t) => {
  const model = await letterModel();
  const batches = await letterBatches();
  const { domains, tokens } = await expertUsage(model, { all: batches }, { tokenIds: [5, 9] });
  const { name, tokens: count, blocks } = only(domains);
  t.is(name, 'all');
  const choices = [0, 1].map(() => [0, 1].map(() => [0, 0, 0, 0]));
  const mass = [0, 1].map(() => [0, 1].map(() => [0, 0, 0, 0]));
  const chosenFor5 = [0, 1].map(() => [0, 1].map(() => [0, 0, 0, 0]));
  const conditional = [
    [0, 0],
    [0, 0],
  ];
  let [text, fives] = [0, 0];
  for (const batch of batches) {
    const mask = textMask(batch);
    text += mask.reduce((sum, keep) => sum + keep, 0);
    const shape = (values: Int32Array) =>
      Array.from({ length: batch.batchSize }, (_, b) => [...values.subarray(b * 16, b * 16 + 16)]);
    const { routers } = noGrad(() =>
      model.forward({
        inputIds: shape(batch.inputIds),
        documentStarts: shape(batch.documentStarts),
      }),
    );
    for (const [block, both] of (routers ?? []).entries()) {
      for (const [kind, { plan, probabilities }] of [both.attention, both.mlp].entries()) {
        const experts = await numbers(plan.experts);
        const p = await numbers(probabilities);
        for (let row = 0; row < experts.length; row++) {
          const n = Math.floor(row / 2);
          const e = experts[row] as number;
          if (mask[n] === 0) continue;
          (choices[block]?.[kind] as number[])[e]! += 1;
          if (batch.inputIds[n] === 5) (chosenFor5[block]?.[kind] as number[])[e]! += 1;
        }
        for (let n = 0; n < mask.length; n++) {
          if (mask[n] === 0) continue;
          const row = [...p.subarray(4 * n, 4 * n + 4)];
          row.forEach((x, e) => ((mass[block]?.[kind] as number[])[e]! += x));
          conditional[block]![kind]! += entropy(row);
        }
      }
    }
    fives += batch.inputIds.filter((id, n) => id === 5 && mask[n] === 1).length;
  }
  t.is(count, text);
  t.is(tokens[0]?.count, fives);
  t.true(fives > 0);
  for (const block of [0, 1]) {
    for (const [i, kind] of (['attention', 'mlp'] as const).entries()) {
      const usage = blocks[block]![kind];
      t.deepEqual(usage.choices, choices[block]![i]);
      t.is(
        usage.choices.reduce((a, b) => a + b),
        2 * text,
      );
      t.deepEqual(tokens[0]?.blocks[block]![kind], chosenFor5[block]![i]);
      usage.probabilityMass.forEach((x, e) => t.true(Math.abs(x - mass[block]![i]![e]!) < 1e-9));
      t.true(Math.abs(usage.marginalEntropy - entropy(mass[block]![i]!)) < 1e-9);
      t.true(Math.abs(usage.conditionalEntropy - conditional[block]![i]! / text) < 1e-9);
      t.true(usage.conditionalEntropy <= usage.marginalEntropy + 1e-12);
      t.true(usage.gateMass.every((x, e) => x > 0 === usage.choices[e]! > 0));
    }
  }
});

test('padding changes nothing', async (t) => {
  const model = await letterModel();
  const padded = await collect(['abcdefghij']);
  const exact = await collect(['abcdefghij']).then(([batch]) => {
    const cut = (x: Int32Array) => x.slice(0, 11);
    const { inputIds, labels, documentStarts } = batch!;
    return {
      batchSize: 1,
      sequenceLength: 11,
      inputIds: cut(inputIds),
      labels: cut(labels),
      documentStarts: cut(documentStarts),
    };
  });
  const [a, b] = [await expertUsage(model, { x: padded }), await expertUsage(model, { x: [exact] })];
  t.is(a.domains[0]?.tokens, 11);
  for (const [block, { attention, mlp }] of a.domains[0]!.blocks.entries()) {
    t.deepEqual(attention.choices, b.domains[0]!.blocks[block]!.attention.choices);
    t.deepEqual(mlp.choices, b.domains[0]!.blocks[block]!.mlp.choices);
    mlp.gateMass.forEach((x, e) =>
      t.true(Math.abs(x - b.domains[0]!.blocks[block]!.mlp.gateMass[e]!) < 1e-12),
    );
  }
});

test('domains that differ share information with the experts, equal domains none', async (t) => {
  const model = await letterModel();
  const [early, late] = [await letterBatches(isEarly), await letterBatches(isLate)];
  const total = ({ domainInformation: blocks }: UsageReport) =>
    blocks.reduce((sum, { attention, mlp }) => sum + attention + mlp, 0);
  t.true(total(await expertUsage(model, { early, late })) > 0.02);
  t.true(total(await expertUsage(model, { early, again: early })) < 1e-12);
});

test('the mass of outputs is gate times norm: it grows with the weights of one expert, for that expert', async (t) => {
  const model = await letterModel();
  const batches = await letterBatches();
  const mass = async () => {
    const { domains } = await expertUsage(model, { x: batches }, { outputMass: true });
    const { attention, mlp } = domains[0]!.blocks[1]!;
    return { attention: attention.outputMass!, mlp: mlp.outputMass! };
  };
  const before = await mass();
  const weights = new Map(model.namedParameters()).get('transformer.h.1.mlpf.output_experts.weight')!;
  const { copyInto, narrow, scale } = await import('../lib/autograd/index.js');
  scope(() => {
    noGrad(() => {
      const expert = narrow(weights, 2, 1);
      copyInto(expert, scale(expert, 3));
    });
  });
  const after = await mass();
  t.deepEqual(after.attention, before.attention);
  after.mlp.forEach((x, e) => t.true(Math.abs(x - before.mlp[e]! * (e === 2 ? 3 : 1)) < 1e-9 * x));
  t.true(before.mlp.every((x) => x > 0));
});

test('the experts of each token of a text', async (t) => {
  const model = await letterModel();
  const inputIds = [
    [1, 2, 3],
    [4, 5, 6],
  ];
  const blocks = await tokenExperts(model, { inputIds });
  t.is(blocks.length, 2);
  const { routing } = model.forward({ inputIds });
  t.deepEqual(blocks[1]?.mlp.experts.flat(2), [...(await numbers(routing![1]!.mlp.experts))]);
  t.deepEqual(blocks[0]?.attention.gates.flat(2), [...(await numbers(routing![0]!.attention.gates))]);
  t.deepEqual([blocks[0]?.mlp.experts.length, blocks[0]?.mlp.experts[0]?.length], [2, 3]);
});

test('the mode is restored, limits are kept and misuse is named', async (t) => {
  const model = await letterModel({ sample_topk: 1, moe_pdrop: 0.5 });
  model.train();
  const batches = await letterBatches();
  const [a, b] = [await expertUsage(model, { x: batches }), await expertUsage(model, { x: batches })];
  t.deepEqual(a, b, 'nothing is drawn at random');
  t.true(model.training);
  const { domains } = await expertUsage(model, { x: batches }, { maxTokens: 40 });
  t.is(domains[0]?.tokens, 64);
  await t.throwsAsync(expertUsage(model, {}), { instanceOf: ValueError });
  await t.throwsAsync(expertUsage(model, { empty: [] }), {
    instanceOf: DataError,
    message: /'empty' has no text/,
  });
  await t.throwsAsync(expertUsage(model, { x: batches }, { tokenIds: [27] }), { instanceOf: ValueError });
  await t.throwsAsync(expertUsage(model, { x: batches }, { signal: AbortSignal.abort() }), { any: true });
});

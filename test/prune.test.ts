import { join } from 'node:path';
import test from 'ava';
import { ShapeError, ValueError } from '../lib/errors.js';
import { compareOutputs } from '../lib/experts/compare.js';
import { chooseKept, pruneExperts, type ExpertScores } from '../lib/experts/prune.js';
import { expertParameters, parametersOf, withExperts } from '../lib/experts/rebuild.js';
import { expertUsage } from '../lib/experts/usage.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { numbers } from './support/compare.js';
import { GATES, letterBatches, letterModel } from './support/experts.js';
import { temporaryDirectory } from './support/files.js';

for (const gate_type of GATES) {
  test(`experts in another order are the same model: ${gate_type}`, async (t) => {
    const model = await letterModel({ gate_type });
    const shuffled = withExperts(model, [
      { attention: [2, 0, 3, 1], mlp: [3, 2, 1, 0] },
      { attention: [1, 0, 2, 3], mlp: [1, 3, 0, 2] },
    ]);
    const { logits, perplexity } = await compareOutputs(model, shuffled, await letterBatches());
    t.true(logits < 1e-12, String(logits));
    t.true(Math.abs(perplexity.before - perplexity.after) < 1e-9);
  });

  test(`what stays has its own weights and its own rows of the router: ${gate_type}`, async (t) => {
    const model = await letterModel({ gate_type });
    const usage = await expertUsage(model, { x: await letterBatches() });
    const {
      model: pruned,
      kept,
      removed,
      parameters,
      bytesSaved,
    } = pruneExperts(model, {
      criterion: 'frequency',
      attention: { fraction: 0.25 },
      mlp: { count: 2 },
      usage,
    });
    t.deepEqual(pruned.config.attentionExperts, [3, 3]);
    t.deepEqual(pruned.config.n_mlp_experts, 2);
    const [old, now] = [parametersOf(model), parametersOf(pruned)];
    const rows = new Set<string>();
    for (const { name, kind, block } of expertParameters(model.config)) {
      rows.add(name);
      const [a, b] = [await numbers(old.get(name)!), await numbers(now.get(name)!)];
      const width = a.length / 4;
      const expected = kept[block]![kind].flatMap((e) => [...a.subarray(e * width, (e + 1) * width)]);
      t.deepEqual([...b], expected, name);
      const { choices } = usage.domains[0]!.blocks[block]![kind];
      const least = Math.min(...kept[block]![kind].map((e) => choices[e]!));
      t.true(removed[block]![kind].every((e) => choices[e]! <= least));
    }
    for (const [name, parameter] of now) {
      if (!rows.has(name)) t.deepEqual(await numbers(parameter), await numbers(old.get(name)!), name);
    }
    t.is(parameters.before - parameters.after, bytesSaved / 8);
    t.is(parameters.after, countParameters(pruned.config).total);
    t.is(
      parameters.after,
      [...pruned.parameters()].reduce((sum, { numel }) => sum + numel, 0),
    );
  });
}

test('copies that are pruned again leave the model as it was, to the bit', async (t) => {
  const model = await letterModel();
  const blocks = [0, 1].map(() => ({ attention: [0, 1, 2, 3, 1], mlp: [3, 0, 1, 2, 3, 0] }));
  const back = [0, 1].map(() => ({ attention: [0, 1, 2, 3], mlp: [1, 2, 3, 0] }));
  const same = withExperts(withExperts(model, blocks), back);
  t.deepEqual(same.config.toJSON(), model.config.toJSON());
  t.is((await compareOutputs(model, same, await letterBatches())).logits, 0);
});

const scores: ExpertScores = [
  { attention: [0.4, 0.3, 0.2, 0.1], mlp: [0.02, 0.9, 0.05, 0.03] },
  { attention: [0.25, 0.25, 0.25, 0.25], mlp: [0.4, 0.1, 0.3, 0.2] },
];

test('amounts: part of a block, part of the model, threshold, count; K experts stay', async (t) => {
  const { config } = await letterModel();
  const kept = (amount: Parameters<typeof chooseKept>[2]) => chooseKept(config, scores, amount);
  const all = [0, 1, 2, 3];
  t.deepEqual(kept({}), [
    { attention: all, mlp: all },
    { attention: all, mlp: all },
  ]);
  t.deepEqual(kept({ attention: { fraction: 0.5 } }), [
    { attention: [0, 1], mlp: all },
    { attention: [0, 1], mlp: all },
  ]);
  t.deepEqual(
    kept({ mlp: { fraction: 1 } }).map(({ mlp }) => mlp),
    [
      [1, 2],
      [0, 2],
    ],
  );
  t.deepEqual(
    kept({ mlp: { threshold: 0.04 } }).map(({ mlp }) => mlp),
    [[1, 2], all],
  );
  t.deepEqual(
    kept({ mlp: { threshold: 0.06 } }).map(({ mlp }) => mlp),
    [[1, 2], all],
  );
  t.deepEqual(
    kept({ mlp: { fraction: 0.25, scope: 'model' } }).map(({ mlp }) => mlp),
    [[1, 2], all],
  );
  t.deepEqual(
    kept({ mlp: { fraction: 0.375, scope: 'model' } }).map(({ mlp }) => mlp),
    [
      [1, 2],
      [0, 2, 3],
    ],
  );
  t.deepEqual(
    kept({ attention: { count: 3 } }).map(({ attention }) => attention),
    [
      [0, 1, 2],
      [0, 1, 2],
    ],
  );
});

test('amounts out of range and usage that is missing are errors', async (t) => {
  const model = await letterModel();
  const usage = await expertUsage(model, { x: await letterBatches() });
  const cases = [
    [{ criterion: 'random', mlp: { fraction: 1.5 } }, ValueError, /fraction of mlp experts is 1.5/],
    [{ criterion: 'random', attention: { threshold: -1 } }, ValueError, /threshold of attention/],
    [{ criterion: 'random', mlp: { count: 1 } }, ShapeError, /1 mlp experts would stay.*K = 2/],
    [{ criterion: 'random', mlp: { fraction: NaN } }, ValueError, /NaN/],
    [{ criterion: 'frequency', mlp: { count: 2 } }, ValueError, /needs usage/],
    [{ criterion: 'outputMass', mlp: { count: 2 }, usage }, ValueError, /without outputMass/],
  ] as const;
  for (const [options, instanceOf, message] of cases) {
    t.throws(() => pruneExperts(model, options), { instanceOf, message });
  }
  const other = await letterModel({ n_mlp_experts: 5 });
  t.throws(() => pruneExperts(other, { criterion: 'gateMass', mlp: { count: 2 }, usage }), {
    instanceOf: ValueError,
    message: /another model/,
  });
});

test('a random choice depends on the seed alone', async (t) => {
  const model = await letterModel({ n_mlp_experts: 16 });
  const kept = (seed: number) =>
    pruneExperts(model, { criterion: 'random', mlp: { count: 8 }, seed }).kept.map(({ mlp }) => mlp);
  t.deepEqual(kept(1), kept(1));
  t.notDeepEqual(kept(1), kept(2));
  t.notDeepEqual(kept(1)[0], kept(1)[1]);
});

test('a model pruned by threshold differs between blocks, is saved, loaded, and runs in bf16', async (t) => {
  const model = await letterModel({}, 'bf16');
  const usage = await expertUsage(model, { x: await letterBatches() }, { outputMass: true });
  const shares = usage.domains[0]!.blocks.map(
    ({ mlp }) => Math.min(...mlp.outputMass!) / mlp.outputMass!.reduce((a, b) => a + b),
  );
  const threshold = (shares[0]! + shares[1]!) / 2;
  const { model: pruned } = pruneExperts(model, { criterion: 'outputMass', mlp: { threshold }, usage });
  t.true(Array.isArray(pruned.config.n_mlp_experts), JSON.stringify(shares));
  const dir = join(await temporaryDirectory(t), 'pruned');
  await pruned.savePretrained(dir);
  const loaded = await ModuleFormerForCausalLM.fromPretrained(dir);
  t.is((await compareOutputs(pruned, loaded, await letterBatches())).logits, 0);
});

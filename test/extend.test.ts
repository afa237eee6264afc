import { join } from 'node:path';
import test from 'ava';
import { copyInto, narrow, noGrad } from '../lib/autograd/index.js';
import { CheckpointError, ConfigError, ValueError } from '../lib/errors.js';
import { addExperts, fingerprint, saveNewExperts } from '../lib/experts/adapter.js';
import { compareOutputs } from '../lib/experts/compare.js';
import { extendExperts, newExpertGroups } from '../lib/experts/extend.js';
import { parametersOf } from '../lib/experts/rebuild.js';
import { upcycle } from '../lib/experts/upcycle.js';
import { expertUsage } from '../lib/experts/usage.js';
import { SafetensorsFile, writeSafetensors } from '../lib/io/safetensors.js';
import type { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { batchInputs } from '../lib/training/batch.js';
import type { Batch } from '../lib/data/loader.js';
import { numbers } from './support/compare.js';
import { GATES, letterBatches, letterModel } from './support/experts.js';
import { temporaryDirectory } from './support/files.js';

/** Some steps on a few batches, with decay everywhere. */
function trainABit(model: ModuleFormerForCausalLM, batches: readonly Batch[], steps = 12): void {
  const optimizer = new AdamW(newExpertGroups(model), { lr: 0.02 });
  model.train();
  for (let step = 0; step < steps; step++) {
    optimizer.zeroGrad();
    scope(() => model.forward(batchInputs(batches[step % batches.length]!, model.device)).loss?.backward());
    clipGradNorm(model.parameters(), 1);
    optimizer.step();
  }
  model.eval();
}

for (const gate_type of GATES) {
  test(`new experts are trained alone: ${gate_type}`, async (t) => {
    const model = await letterModel({ gate_type }, 'f32');
    const extended = extendExperts(model, { attention: 1, mlp: 2, seed: 3 });
    t.deepEqual(extended.config.attentionExperts, [5, 5]);
    t.is(extended.config.n_mlp_experts, 6);
    const batches = await letterBatches();
    const before = await compareOutputs(model, extended, batches);
    t.true(before.logits > 0 && before.logits < 1, `the output changes by ${before.logits}`);
    trainABit(extended, batches);
    const old = parametersOf(model);
    for (const [name, parameter] of extended.namedParameters()) {
      const [a, b] = [await old.get(name)!.bytes(), await parameter.bytes()];
      t.deepEqual(b.subarray(0, a.length), a, `${name}: what was there is as it was`);
    }
    const after = await compareOutputs(extended, model, batches);
    t.true(after.perplexity.before < before.perplexity.after, 'the new experts learned');
  });

  test(`copies take over from the experts that are used most: ${gate_type}`, async (t) => {
    const model = await letterModel({ gate_type });
    const batches = await letterBatches();
    const usage = await expertUsage(model, { x: batches });
    const extended = extendExperts(model, { mlp: 1, init: 'copy', usage, noise: 1e-3 });
    t.deepEqual(extended.config.attentionExperts, [4, 4]);
    const [old, now] = [parametersOf(model), parametersOf(extended)];
    for (const block of [0, 1]) {
      const { choices } = usage.domains[0]!.blocks[block]!.mlp;
      const best = choices.indexOf(Math.max(...choices));
      const name = `transformer.h.${block}.mlpf.experts.weight`;
      const [a, b] = [await numbers(old.get(name)!), await numbers(now.get(name)!)];
      t.deepEqual(b.subarray(4 * 256), a.subarray(best * 256, (best + 1) * 256));
      const row = { mlp: 'w_gate.3.weight', linear: 'w_gate.0.weight', gmm: 'expert_centroids' }[gate_type];
      const router = `transformer.h.${block}.mlpf.gate.${row}`;
      const [c, d] = [await numbers(old.get(router)!), await numbers(now.get(router)!)];
      const width = c.length / 4;
      const difference = Math.hypot(...d.subarray(4 * width).map((x, i) => x - c[best * width + i]!));
      const norm = Math.hypot(...c.subarray(best * width, (best + 1) * width));
      t.true(difference > 0 && difference < 3e-3 * norm, `${difference} of ${norm}`);
    }
    const used = await expertUsage(extended, { x: batches });
    t.true(
      used.domains[0]!.blocks.some(({ mlp }) => mlp.choices[4]! > 0),
      'copies are chosen from the start',
    );
  });

  test(`a dense model becomes one of experts with the same outputs, up to the noise: ${gate_type}`, async (t) => {
    const dense = await letterModel({ gate_type, n_att_experts: 1, k_att: 1, n_mlp_experts: 1, k_mlp: 1 });
    const batches = await letterBatches();
    const changes: number[] = [];
    for (const noise of [1e-2, 1e-4, 1e-6]) {
      const sparse = upcycle(dense, {
        attention: { experts: 4, k: 2 },
        mlp: { experts: 6, k: 2 },
        noise,
        seed: 1,
      });
      t.deepEqual([sparse.config.n_att_experts, sparse.config.k_att, sparse.config.n_mlp_experts], [4, 2, 6]);
      const { logits } = await compareOutputs(dense, sparse, batches);
      changes.push(logits);
      t.true(logits < 20 * noise, `${logits} for noise ${noise}`);
      const usage = await expertUsage(sparse, { x: batches });
      for (const { attention, mlp } of usage.domains[0]!.blocks) {
        const used = [attention, mlp].map(({ choices }) => choices.filter((count) => count > 0).length);
        t.true(
          used[0]! >= 3 && used[1]! >= 4,
          `ties are broken in many ways: ${used.join(' and ')} experts are used`,
        );
      }
    }
    t.true(changes[2]! < 1e-2 * changes[0]!, changes.join(' '));
    t.log(
      `relative change of the logits for noise 1e-2, 1e-4, 1e-6: ${changes.map((x) => x.toExponential(1)).join(', ')}`,
    );
  });

  test(`new experts are saved alone, and two files loaded together: ${gate_type}`, async (t) => {
    const dir = await temporaryDirectory(t);
    const base = await letterModel({ gate_type }, 'f32');
    const batches = await letterBatches();
    const files = [join(dir, 'a.safetensors'), join(dir, 'b.safetensors')] as const;
    const models = [
      extendExperts(base, { mlp: 1, seed: 1 }),
      extendExperts(base, { attention: 2, mlp: 1, seed: 2 }),
    ] as const;
    for (const [i, model] of models.entries()) {
      trainABit(model, batches, 3);
      await saveNewExperts(model, base, files[i]!);
    }
    const file = await SafetensorsFile.open(files[0]);
    t.is(file.entries.size, 6, '2 blocks of input, output and router');
    t.deepEqual(file.entries.get('transformer.h.1.mlpf.experts.weight')?.shape, [1, 16, 16]);
    t.is(file.metadata.get('base'), await fingerprint(base));
    await file.close();

    const again = await addExperts(base, [files[0]]);
    t.is((await compareOutputs(models[0], again, batches)).logits, 0);
    const both = await addExperts(base, files);
    t.deepEqual([both.config.n_att_experts, both.config.n_mlp_experts], [6, 6]);
    const [p, a, b] = [both, ...models].map((model) => parametersOf(model));
    for (const name of [
      'transformer.h.0.mlpf.experts.weight',
      'transformer.h.1.mlpf.output_experts.weight',
    ]) {
      const rows = (values: ArrayLike<number>, row: number) =>
        Array.from(values).slice(row * 256, row * 256 + 256);
      const all = await numbers(p!.get(name)!);
      t.deepEqual(rows(all, 4), rows(await numbers(a!.get(name)!), 4));
      t.deepEqual(rows(all, 5), rows(await numbers(b!.get(name)!), 4));
      t.deepEqual(rows(all, 3), rows(await numbers(a!.get(name)!), 3));
    }
  });
}

for (const dtype of ['f32', 'bf16'] as const) {
  test(`hidden units of the routers that new experts alone read: ${dtype}`, async (t) => {
    const dir = await temporaryDirectory(t);
    const base = await letterModel({}, dtype);
    const batches = await letterBatches();
    const G = base.config.gating_size;
    const wider = extendExperts(base, { mlp: 1, attention: 1, gating: 3, seed: 1 });
    t.is(wider.config.gating_size, G + 3);
    const name = 'transformer.h.1.mlpf.gate.w_gate.3.weight';
    const [old, rows] = [
      await numbers(parametersOf(base).get(name)!),
      await numbers(parametersOf(wider).get(name)!),
    ];
    for (let e = 0; e < 4; e++)
      t.deepEqual(
        Array.from(rows.slice(e * (G + 3), (e + 1) * (G + 3))),
        [...old.slice(e * G, (e + 1) * G), 0, 0, 0],
        `expert ${e} does not read them`,
      );
    t.true(rows.slice(4 * (G + 3) + G).some((x) => x !== 0));
    const hidden = 'transformer.h.1.mlpf.gate.w_gate.0.weight';
    const before = await parametersOf(wider).get(hidden)!.bytes();
    trainABit(wider, batches, 4);
    const after = await parametersOf(wider).get(hidden)!.bytes();
    const kept = (before.length * G) / (G + 3);
    t.deepEqual(after.subarray(0, kept), before.subarray(0, kept), 'the old ones are frozen');
    t.notDeepEqual(after.subarray(kept), before.subarray(kept), 'the new ones learn');

    const files = ['a', 'b', 'c'].map((each) => join(dir, `${each}.safetensors`));
    const plain = extendExperts(base, { mlp: 1, seed: 2 });
    const other = extendExperts(base, { mlp: 2, gating: 2, seed: 3 });
    for (const [i, model] of [wider, plain, other].entries()) {
      if (model !== wider) trainABit(model, batches, 4);
      await saveNewExperts(model, base, files[i]!);
    }
    t.is((await compareOutputs(wider, await addExperts(base, [files[0]!]), batches)).logits, 0);
    t.is((await compareOutputs(other, await addExperts(base, [files[2]!]), batches)).logits, 0);
    const all = await addExperts(base, files);
    t.deepEqual([all.config.gating_size, all.config.n_mlp_experts], [G + 5, 8]);
    const together = await numbers(parametersOf(all).get(name)!);
    const last = Array.from(together.slice(7 * (G + 5)));
    t.deepEqual(last.slice(G, G + 3), [0, 0, 0], 'the units of another file are not read');
    const own = await numbers(parametersOf(other).get(name)!);
    t.deepEqual([...last.slice(0, G), ...last.slice(G + 3)], Array.from(own.slice(5 * (G + 2))));
    const changed = parametersOf(wider).get(name)!;
    noGrad(() => scope(() => copyInto(narrow(changed, 0, 1), narrow(changed, 4, 1))));
    await t.throwsAsync(saveNewExperts(wider, base, files[0]!), { message: /w_gate.3.weight is not that/ });
  });
}

test('a file that does not fit is refused with the reason', async (t) => {
  const dir = await temporaryDirectory(t);
  const base = await letterModel({}, 'f32');
  const file = join(dir, 'new.safetensors');
  const extended = extendExperts(base, { mlp: 1 });
  await saveNewExperts(extended, base, file);
  const other = await letterModel({ initializer_range: 0.1 }, 'f32');
  const cases: [ModuleFormerForCausalLM, string, RegExp][] = [
    [other, file, /made with another base model \([0-9a-f]{12}\.\.\., this one is [0-9a-f]{12}\.\.\.\)/],
    [await letterModel(), file, /made for a base in f32, this one is loaded in f64/],
    [base, join(dir, 'missing.safetensors'), /missing/],
  ];
  const plain = join(dir, 'plain.safetensors');
  await writeSafetensors(plain, []);
  cases.push([base, plain, /no file of new experts \(its format is pt\)/]);
  const empty = join(dir, 'empty.safetensors');
  const metadata = {
    format: 'moduleformer-experts',
    version: '1',
    base: await fingerprint(base),
    base_dtype: 'f32',
  };
  await writeSafetensors(empty, [], metadata);
  cases.push([base, empty, /holds no expert that fits/]);
  const newer = join(dir, 'newer.safetensors');
  await writeSafetensors(newer, [], { ...metadata, version: '2' });
  cases.push([base, newer, /version 2, this package reads 1/]);
  const half = join(dir, 'half.safetensors');
  const chunks = () => [new Uint8Array(4 * 256)];
  const input = {
    name: 'transformer.h.0.mlpf.experts.weight',
    dtype: 'F32' as const,
    shape: [1, 16, 16],
    byteLength: 1024,
    chunks,
  };
  await writeSafetensors(half, [input], metadata);
  cases.push([base, half, /missing transformer\.h\.0\.mlpf\.output_experts\.weight/]);
  for (const [model, path, message] of cases) {
    await t.throwsAsync(addExperts(model, [path]), { instanceOf: CheckpointError, message });
  }
  await t.throwsAsync(addExperts(base, []), { instanceOf: ValueError });
  await t.throwsAsync(saveNewExperts(base, base, file), {
    instanceOf: ValueError,
    message: /no experts that its base lacks/,
  });
  await t.throwsAsync(saveNewExperts(extended, other, file), {
    instanceOf: ValueError,
    message: /is not that of the base/,
  });
});

test('impossible wishes are named', async (t) => {
  const model = await letterModel();
  t.throws(() => extendExperts(model, {}), { instanceOf: ValueError, message: /no new experts/ });
  t.throws(() => extendExperts(model, { mlp: -1 }), {
    instanceOf: ValueError,
    message: /-1 new mlp experts/,
  });
  t.throws(() => extendExperts(model, { mlp: 1, outputScale: NaN }), { instanceOf: ValueError });
  t.throws(() => extendExperts(model, { mlp: 1, gating: 0.5 }), { instanceOf: ValueError });
  const linear = await letterModel({ gate_type: 'linear' });
  t.throws(() => extendExperts(linear, { mlp: 1, gating: 2 }), {
    instanceOf: ValueError,
    message: /need the gate mlp, this model's is linear/,
  });
  t.throws(() => extendExperts(model, { mlp: 1, init: 'copy' }), {
    instanceOf: ValueError,
    message: /needs usage/,
  });
  const wish = { attention: { experts: 4, k: 2 }, mlp: { experts: 4, k: 2 } };
  t.throws(() => upcycle(model, wish), { instanceOf: ConfigError, message: /4 attention experts.*dense/ });
  const dense = await letterModel({ n_att_experts: 1, k_att: 1, n_mlp_experts: 1, k_mlp: 1 });
  t.throws(() => upcycle(dense, { ...wish, mlp: { experts: 2, k: 3 } }), { instanceOf: ConfigError });
  t.throws(() => upcycle(dense, { ...wish, noise: 0 }), { instanceOf: ValueError });
});

import test from 'ava';
import { DataError, ValueError } from '../lib/errors.js';
import { extendExperts, newExpertGroups } from '../lib/experts/extend.js';
import { RouterMemory } from '../lib/experts/router-memory.js';
import { expertUsage } from '../lib/experts/usage.js';
import type { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { scope } from '../lib/scope.js';
import { evaluate } from '../lib/training/evaluate.js';
import { batchInputs } from '../lib/training/batch.js';
import type { Batch } from '../lib/data/loader.js';
import { Trainer } from '../lib/training/trainer.js';
import { GATES, letterBatches, letterModel } from './support/experts.js';
import { temporaryDirectory } from './support/files.js';
import { tinyDataset, tinyRun } from './support/training.js';

const isOld = (letter: string): boolean => letter < 'n';

/** Trains new experts on new text alone, with the memory's penalty if there is one. */
function learn(model: ModuleFormerForCausalLM, text: readonly Batch[], memory: RouterMemory | null): void {
  const optimizer = new AdamW(newExpertGroups(model, { routerDecay: 0 }), { lr: 0.03 });
  for (let step = 0; step < 40; step++) {
    optimizer.zeroGrad();
    scope(() => {
      model.forward(batchInputs(text[step % text.length]!, model.device)).crossEntropy?.backward();
      memory?.penalty(model, 3).backward();
    });
    optimizer.step();
  }
}

/** The part of the choices on a text that new experts have. */
async function partInNew(model: ModuleFormerForCausalLM, text: readonly Batch[]): Promise<number> {
  const { domains } = await expertUsage(model, { text });
  const choices = domains[0]!.blocks.flatMap(({ attention, mlp }) => [attention.choices, mlp.choices]);
  const count = (of: number[][]): number => of.flat().reduce((sum, n) => sum + n, 0);
  return count(choices.map((each) => each.slice(4))) / count(choices);
}

for (const gate_type of GATES) {
  test(`old text keeps its experts: ${gate_type}`, async (t) => {
    const base = await letterModel({ gate_type });
    const old = await letterBatches(isOld);
    const fresh = await letterBatches((letter) => !isOld(letter));
    const memory = await RouterMemory.of(base, old, { tokens: 64 });
    const [free, kept] = [1, 1].map((mlp) => extendExperts(base, { attention: 1, mlp, seed: 3 }));
    learn(free!, fresh, null);
    learn(kept!, fresh, memory);
    const [inFree, inKept] = [await partInNew(free!, old), await partInNew(kept!, old)];
    t.true(inKept < inFree / 2, `old text in new experts: ${inFree} without memory, ${inKept} with it`);
    t.true((await memory.penalty(kept!).item()) < (await memory.penalty(free!).item()));
    const before = (await evaluate(base, old)).loss;
    const change = async (model: ModuleFormerForCausalLM): Promise<number> =>
      Math.abs((await evaluate(model, old)).loss - before);
    // The logits of `gmm` are cosines: a new expert always has some mass, and old gates change.
    if (gate_type !== 'gmm') t.true((await change(kept!)) < (await change(free!)));
  });
}

test('the penalty is the divergence of the routing from that of the base', async (t) => {
  const base = await letterModel();
  const old = await letterBatches();
  const memory = await RouterMemory.of(base, old, { tokens: Number.MAX_SAFE_INTEGER });
  const extended = extendExperts(base, { mlp: 3, seed: 1 });
  const { domains } = await expertUsage(extended, { old });
  // The mean over tokens of -log of a mass is at least -log of the mean mass; in the first block features are the same.
  const mass = domains[0]!.blocks.map(({ mlp: { probabilityMass } }) => {
    const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
    return sum(probabilityMass.slice(0, 4)) / sum(probabilityMass);
  });
  const penalty = await memory.penalty(extended).item();
  t.true(penalty >= -Math.log(mass[0]!) && penalty < -1.5 * (Math.log(mass[0]!) + Math.log(mass[1]!)));
  t.is(await memory.penalty(extended, 2).item(), 2 * penalty);
});

test('a trainer adds its regularizer to the loss of every step', async (t) => {
  const dir = await temporaryDirectory(t);
  const dataset = await tinyDataset(dir);
  const base = await letterModel({}, 'f32');
  const memory = await RouterMemory.of(base, await letterBatches(isOld));
  const penaltyAfter = async (weight: number, accumulationSteps: number) => {
    const model = extendExperts(base, { attention: 1, mlp: 2, seed: 3 });
    const { last } = await new Trainer({
      ...tinyRun(dataset),
      model,
      optimizer: new AdamW(newExpertGroups(model, { routerDecay: 0 })),
      accumulationSteps,
      lossWeights: { aux: 0 },
      regularizer: () => memory.penalty(model, weight),
    }).run();
    return { last: last!, penalty: await memory.penalty(model).item() };
  };
  for (const accumulationSteps of [1, 2]) {
    const [without, with_] = [
      await penaltyAfter(0, accumulationSteps),
      await penaltyAfter(10, accumulationSteps),
    ];
    t.true(with_.penalty < without.penalty);
    t.true(Math.abs(without.last.loss - without.last.crossEntropy) < 1e-6);
    const extra = with_.last.loss - with_.last.crossEntropy;
    t.true(extra > 9 * with_.penalty && extra < 15 * with_.penalty, `${extra}, penalty ${with_.penalty}`);
  }
});

test('misuse of a router memory is refused', async (t) => {
  const base = await letterModel();
  const old = await letterBatches();
  await t.throwsAsync(RouterMemory.of(base, []), { instanceOf: DataError, message: /no text/ });
  for (const tokens of [0, 1.5])
    await t.throwsAsync(RouterMemory.of(base, old, { tokens }), {
      instanceOf: ValueError,
      message: /tokens/,
    });
  const memory = await RouterMemory.of(base, old);
  t.throws(() => memory.penalty(base), { instanceOf: ValueError, message: /no experts that its base lacks/ });
  const smaller = await letterModel({ n_mlp_experts: 3 });
  t.throws(() => memory.penalty(smaller), { instanceOf: ValueError, message: /fewer mlp experts/ });
});

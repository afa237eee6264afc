import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { affine, reshape, routerLoss, routerTopK, rowDot } from '../lib/autograd/index.js';
import { DataLoader } from '../lib/data/loader.js';
import { ValueError } from '../lib/errors.js';
import { scope } from '../lib/scope.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { lossWeightsAt } from '../lib/training/loss-weights.js';
import { meanEntropy } from '../lib/training/metrics.js';
import { Trainer } from '../lib/training/trainer.js';
import { numbers, relativeError } from './support/compare.js';
import { temporaryDirectory } from './support/files.js';
import { normals } from './support/random.js';
import { tinyDataset, tinyRun } from './support/training.js';

const [N, E, K] = [24, 5, 2];

/** Losses weighted to a scalar, and the gradient of the logits. */
function lossOf(values: Float64Array, weight: number, population?: Tensor) {
  const logits = tensor(values, { shape: [values.length / E, E], requiresGrad: true });
  const { losses, stats } = scope(() => {
    const { plan, gates, probs } = routerTopK(logits, { k: K });
    const { losses, stats } = routerLoss(logits, probs, gates, plan, null, population);
    return { losses: affine(losses, weight, 0), stats };
  });
  return { losses, stats, logits };
}

test('the parts of a batch have the losses and the gradients of the batch', async (t) => {
  const values = normals(3, N * E);
  const whole = lossOf(values, 1);
  const cuts = [0, 10 * E, 11 * E, N * E];
  const parts = [0, 1, 2].map((i) => values.slice(cuts[i], cuts[i + 1]));
  const sums = new Float64Array(3 * E);
  for (const part of parts) (await numbers(lossOf(part, 1).stats)).forEach((x, i) => (sums[i]! += x));
  const population = tensor(sums, { shape: [3, E] });
  t.true(relativeError(await numbers(whole.stats), sums) < 1e-14);

  for (const kind of [0, 1, 2, 3]) {
    const pick = (losses: Tensor): Tensor => {
      const coefficients = tensor(
        Float64Array.from([0, 1, 2, 3], (i) => Number(i === kind)),
        { shape: [1, 4] },
      );
      return scope(() => rowDot(reshape(losses, [1, 4]), coefficients));
    };
    const all = lossOf(values, 1);
    pick(all.losses).backward();
    const gradients: number[] = [];
    let value = 0;
    let alone = 0;
    for (const part of parts) {
      const weight = part.length / values.length;
      const { losses, logits } = lossOf(part, weight, population);
      value += (await numbers(losses))[kind]!;
      alone += (await numbers(lossOf(part, weight).losses))[kind]!;
      pick(losses).backward();
      gradients.push(...(await numbers(logits.grad!)));
    }
    const expected = (await numbers(all.losses))[kind]!;
    t.true(Math.abs(value - expected) < 1e-12, `loss ${kind}: ${value}, expected ${expected}`);
    t.true(relativeError(gradients, await numbers(all.logits.grad!)) < 1e-12, `gradient of loss ${kind}`);
    if (kind !== 2) t.true(Math.abs(alone - expected) > 1e-4, 'the parts by themselves would differ');
  }
});

async function dataset(t: ExecutionContext) {
  return tinyDataset(join(await temporaryDirectory(t), 'corpus'));
}

const still = { sample_topk: 0, resid_pdrop: 0, embd_pdrop: 0, moe_pdrop: 0 };

for (const aux_loss_type of ['mi', 'switch'] as const) {
  test(`micro-batches balanced over the step make the steps of one large batch: ${aux_loss_type}`, async (t) => {
    const data = await dataset(t);
    const config = { ...still, aux_loss_type, aux_loss_weight: 0.5 };
    const shape = { dataset: data, sequenceLength: 16, seed: 3 };
    const run = async (batchSize: number, accumulationSteps: number, balanceOver: 'step' | 'microBatch') => {
      const train = new DataLoader({ ...shape, batchSize });
      const lossWeights = { concentration: 0.05 };
      const options = tinyRun(data, {
        config,
        dtype: 'f64',
        train,
        accumulationSteps,
        balanceOver,
        lossWeights,
        totalSteps: 4,
      });
      options.model.gradientCheckpointing = true;
      const { last } = await new Trainer(options).run();
      const weights: number[] = [];
      for (const parameter of options.model.parameters()) weights.push(...(await numbers(parameter)));
      return { last: last!, weights };
    };
    const large = await run(4, 1, 'microBatch');
    const small = await run(1, 4, 'step');
    const local = await run(1, 4, 'microBatch');
    for (const name of ['loss', 'auxLoss', 'concentrationLoss', 'gradNorm'] as const) {
      t.true(
        Math.abs(small.last[name]! - large.last[name]!) < 1e-7,
        `${name}: ${small.last[name]}, ${large.last[name]}`,
      );
    }
    const [a, b] = [small, large].map(({ last }) => meanEntropy(last.routerEntropy!));
    t.true(Math.abs(a!.marginal - b!.marginal) < 1e-7 && Math.abs(a!.conditional - b!.conditional) < 1e-7);
    t.true(Math.abs(b!.marginal - large.last.concentrationLoss! / 4) < 1e-7, 'the mean over four routers');
    t.true(b!.conditional > 0 && b!.conditional < b!.marginal);
    t.deepEqual(small.last.expertLoad, large.last.expertLoad, 'the pass for the statistics is not counted');
    t.true(relativeError(small.weights, large.weights) < 1e-7);
    t.true(
      relativeError(local.weights, large.weights) > 1e-4,
      'balancing each micro-batch is something else',
    );
  });
}

test('with dropout and drawn experts, the pass for the statistics draws what the pass for gradients draws', async (t) => {
  const data = await dataset(t);
  const options = tinyRun(data, { accumulationSteps: 2, balanceOver: 'step', totalSteps: 3 });
  const loads: unknown[] = [];
  const forward = options.model.forward.bind(options.model);
  const seen: Promise<Float64Array>[] = [];
  options.model.forward = (inputs) => {
    const out = forward(inputs);
    seen.push(numbers(out.routers![1]!.mlp.statistics));
    return out;
  };
  await new Trainer({ ...options, onStep: ({ expertLoad }) => loads.push(expertLoad) }).run();
  const all = await Promise.all(seen);
  t.is(all.length, 3 * 4);
  for (let step = 0; step < 3; step++) {
    t.deepEqual(all[4 * step], all[4 * step + 2]);
    t.deepEqual(all[4 * step + 1], all[4 * step + 3]);
    t.notDeepEqual(all[4 * step], all[4 * step + 1]);
  }
  t.is(options.model.forwardCount, 6);
});

test('weights follow their ramps, and concentration gathers the load on fewer experts', async (t) => {
  const ramp = { concentration: { from: 0.1, to: 0.5, startStep: 2, steps: 4 }, aux: 0.25 };
  t.deepEqual(lossWeightsAt(ramp, 0), { concentration: 0.1, aux: 0.25 });
  t.true(Math.abs((lossWeightsAt(ramp, 4).concentration ?? NaN) - 0.3) < 1e-12);
  t.is(lossWeightsAt(ramp, 100).concentration, 0.5);

  const data = await dataset(t);
  const run = async (lossWeights: object) => {
    const options = tinyRun(data, { config: { ...still, aux_loss_weight: 0 }, lossWeights, totalSteps: 30 });
    const { last } = await new Trainer(options).run();
    return last!.concentrationLoss!;
  };
  const [without, gathered, balanced] = [
    await run({}),
    await run({ concentration: { to: 1, steps: 10 } }),
    await run({ aux: 1 }),
  ];
  t.true(gathered < 0.9 * without, `entropy ${gathered} with concentration, ${without} without`);
  t.true(gathered < balanced);
});

test('impossible weights are refused', async (t) => {
  const data = await dataset(t);
  const cases: [object, RegExp][] = [
    [{ concentration: -1 }, /weight of concentration is -1/],
    [{ aux: { to: NaN, steps: 3 } }, /weight of aux is NaN/],
    [{ z: { to: 1, steps: 0 } }, /ramp of z/],
    [{ balance: 1 }, /unknown loss weight 'balance'/],
  ];
  for (const [lossWeights, message] of cases) {
    t.throws(() => new Trainer(tinyRun(data, { lossWeights })), { instanceOf: ValueError, message });
  }
});

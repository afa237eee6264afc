import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import { streamedBatches } from '../lib/data/streamed-batches.js';
import { readDocuments } from '../lib/data/corpus.js';
import { DataLoader, type Batch } from '../lib/data/loader.js';
import { createRandom } from '../lib/data/random.js';
import { CheckpointError, DataError, DivergenceError, KernelError, ValueError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { batchInputs, countPredicted } from '../lib/training/batch.js';
import { checkpointDir, checkpointSteps, latestCheckpoint } from '../lib/training/checkpoint-files.js';
import { evaluate } from '../lib/training/evaluate.js';
import { readMetrics } from '../lib/training/metrics.js';
import { weightDecayGroups } from '../lib/training/parameter-groups.js';
import { Trainer } from '../lib/training/trainer.js';
import { letterTokenizer } from './support/data.js';
import { temporaryDirectory } from './support/files.js';
import { checkpointBytes, STEPS, tinyDataset, tinyRun, tokenizer } from './support/training.js';

async function corpus(t: ExecutionContext) {
  const dir = await temporaryDirectory(t);
  return { dir, dataset: await tinyDataset(join(dir, 'corpus')) };
}

async function weightsOf({
  model,
}: Pick<ReturnType<typeof tinyRun>, 'model'>): Promise<Record<string, number[]>> {
  const values: Record<string, number[]> = {};
  for (const [name, parameter] of model.namedParameters()) {
    values[name] = [...((await parameter.data()) as Float32Array)];
  }
  return values;
}

test('the loop is the one that anybody would write by hand', async (t) => {
  const { dataset } = await corpus(t);
  const byHand = tinyRun(dataset);
  const { model, train, schedule } = byHand;
  const optimizer = new AdamW(weightDecayGroups(model, 0.1));
  model.train();
  let step = 0;
  for await (const batch of train) {
    scope(() => model.forward(batchInputs(batch, 'cpu')).loss?.backward());
    optimizer.lr = schedule(step);
    clipGradNorm(model.parameters(), 1);
    optimizer.step();
    optimizer.zeroGrad();
    if (++step === STEPS) break;
  }
  const made = tinyRun(dataset);
  const result = await new Trainer(made).run();
  t.is(result.step, STEPS);
  t.is(result.status, 'finished');
  t.false(made.model.training, 'the mode is restored');
  const [a, b] = [await weightsOf(byHand), await weightsOf(made)];
  // The head's products differ: by hand with logits, in the trainer without.
  for (const [name, values] of Object.entries(a)) {
    const difference = Math.hypot(...values.map((x, i) => x - (b[name]?.[i] ?? NaN)));
    t.true(difference <= 1e-4 * Math.hypot(...values, 1e-3), `${name}: ${difference}`);
  }
});

test('training lowers the loss, and the metrics tell the load of every expert once', async (t) => {
  const { dir, dataset } = await corpus(t);
  const runDir = join(dir, 'run');
  const config = { sample_topk: 0, resid_pdrop: 0, embd_pdrop: 0, moe_pdrop: 0 };
  const options = tinyRun(dataset, { runDir, config, accumulationSteps: 3 });
  options.model.gradientCheckpointing = true; // recomputation must not count again
  await new Trainer(options).run();
  const metrics = await readMetrics(join(runDir, 'metrics.jsonl'));
  t.deepEqual(
    metrics.map(({ step }) => step),
    Array.from({ length: STEPS }, (_, i) => i + 1),
  );
  const [first, last] = [metrics[0], metrics.at(-1)];
  t.true((last?.crossEntropy ?? NaN) < (first?.crossEntropy ?? NaN));
  t.is(first?.lr, 0);
  t.is(last?.tokens, STEPS * 3 * 2 * 16);
  for (const { loss, crossEntropy, auxLoss, expertLoad } of metrics) {
    t.true(Math.abs(loss - crossEntropy - 0.01 * auxLoss) < 1e-5);
    t.is(expertLoad?.length, 2);
    for (const { attention, mlp } of expertLoad ?? []) {
      for (const load of [attention, mlp]) t.is(sum(load), 3 * 2 * 16 * 2, 'tokens times top-k');
    }
  }
});

test('micro-batches count by their predicted tokens, as one large batch does', async (t) => {
  const { dataset } = await corpus(t);
  const config = { sample_topk: 0, resid_pdrop: 0, embd_pdrop: 0, moe_pdrop: 0, aux_loss_weight: 0 };
  const shape = { dataset, sequenceLength: 16, seed: 3 };
  const small = tinyRun(dataset, {
    config,
    accumulationSteps: 4,
    train: new DataLoader({ ...shape, batchSize: 1 }),
  });
  const large = tinyRun(dataset, { config, train: new DataLoader({ ...shape, batchSize: 4 }) });
  const results = [await new Trainer(small).run(), await new Trainer(large).run()];
  const [a, b] = results.map(({ last }) => last);
  t.true(Math.abs((a?.crossEntropy ?? NaN) - (b?.crossEntropy ?? NaN)) < 1e-5);
  t.true(Math.abs((a?.gradNorm ?? NaN) - (b?.gradNorm ?? NaN)) < 1e-4);
});

for (const dtype of ['f32', 'bf16'] as const) {
  test(`a run that is interrupted anywhere continues bit for bit in ${dtype}`, async (t) => {
    const { dir, dataset } = await corpus(t);
    const whole = tinyRun(dataset, { dtype, runDir: join(dir, 'whole'), validation: held(dataset) });
    const { checkpoint, validation } = await new Trainer(whole).run();
    const expected = await checkpointBytes(checkpoint as string);
    for (const stopAt of [1, 3, 5]) {
      const runDir = join(dir, `stopped-${stopAt}`);
      const controller = new AbortController();
      const part = await new Trainer(
        tinyRun(dataset, {
          dtype,
          runDir,
          signal: controller.signal,
          onStep: ({ step }) => void (step === stopAt && controller.abort()),
        }),
      ).run();
      t.is(part.status, 'aborted');
      t.true(part.step >= stopAt && part.step <= stopAt + 1);
      t.is(part.checkpoint, checkpointDir(runDir, part.step));
      const resumed = await new Trainer(
        tinyRun(dataset, { dtype, runDir, validation: held(dataset) }),
      ).resume();
      t.is(resumed.status, 'finished');
      t.deepEqual(await checkpointBytes(resumed.checkpoint as string), expected);
      t.deepEqual(resumed.validation, validation);
      const metrics = await readMetrics(join(runDir, 'metrics.jsonl'));
      t.deepEqual(
        metrics.map(({ step }) => step),
        Array.from({ length: STEPS }, (_, i) => i + 1),
      );
    }
  });
}

test('killed at random moments and with other thread counts, a run ends with the same bits', async (t) => {
  const { dir, dataset } = await corpus(t);
  const totalSteps = 40;
  const whole = await new Trainer(tinyRun(dataset, { runDir: join(dir, 'whole'), totalSteps })).run();
  const runDir = join(dir, 'killed');
  const random = createRandom(1);
  let kills = 0;
  for (let threads = 1; ; threads = 3 - threads) {
    const child = startChild(dataset.dir, runDir, totalSteps, threads);
    const closed = once(child, 'close') as Promise<[number | null, string | null]>;
    // A checkpoint follows each step, so most of these moments lie within the writing of one.
    let left = 1 + random.below(6);
    createInterface({ input: child.stdout }).on('line', () => {
      if (--left === 0 && kills < 4) setTimeout(() => child.kill('SIGKILL'), random.below(15));
    });
    const [code, signal] = await closed;
    if (signal === null) {
      t.is(code, 0);
      break;
    }
    t.is(signal, 'SIGKILL');
    kills++;
  }
  t.is(kills, 4);
  const last = (await latestCheckpoint(runDir)) as string;
  t.is(last, checkpointDir(runDir, totalSteps));
  t.deepEqual(await checkpointBytes(last), await checkpointBytes(whole.checkpoint as string));
  const metrics = await readMetrics(join(runDir, 'metrics.jsonl'));
  t.deepEqual(
    metrics.map(({ step }) => step),
    Array.from({ length: totalSteps }, (_, i) => i + 1),
  );
});

test('a loss that is no number stops training, changes nothing more and keeps the last checkpoint', async (t) => {
  const { dir, dataset } = await corpus(t);
  const runDir = join(dir, 'run');
  const options = tinyRun(dataset, { runDir, checkpointEvery: 2 });
  const head = [...options.model.parameters()].at(-1);
  // The rate of step 6 is asked for when step 5 is enqueued: step 6 then computes with a broken parameter.
  const schedule = Object.assign(
    (step: number) => {
      if (step === 5) native.fill(head?.id as number, NaN);
      return 0.01;
    },
    { description: options.schedule.description },
  );
  const error = await t.throwsAsync(new Trainer({ ...options, schedule }).run(), {
    instanceOf: DivergenceError,
  });
  t.regex(error?.message ?? '', /diverged in step 6: loss NaN, gradient norm NaN/);
  t.true(error?.message.includes(checkpointDir(runDir, 4)));
  t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 4));
  t.deepEqual(await checkpointSteps(runDir), [2, 4]);
  t.true(Number.isNaN((await readMetrics(join(runDir, 'metrics.jsonl'))).at(-1)?.loss));
  for (const [name, tensor] of options.optimizer.namedState()) {
    if (name.endsWith('.step')) t.is(await tensor.item(), 5, 'neither step 6 nor 7 was applied');
  }
});

test.serial(
  'a kernel that fails in mid-step is named, and the run goes on from its checkpoint',
  async (t) => {
    const { dir, dataset } = await corpus(t);
    const whole = await new Trainer(tinyRun(dataset, { runDir: join(dir, 'whole') })).run();
    const runDir = join(dir, 'run');
    const options = tinyRun(dataset, {
      runDir,
      onStep: ({ step }) => void (step === 4 && native.failNext('attention')),
    });
    const error = await t.throwsAsync(new Trainer(options).run(), { instanceOf: KernelError });
    t.regex(error?.message ?? '', /training step 6 failed and was not applied: attention: /);
    t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 3));
    const { checkpoint } = await new Trainer(tinyRun(dataset, { runDir })).resume();
    t.deepEqual(
      await checkpointBytes(checkpoint as string),
      await checkpointBytes(whole.checkpoint as string),
    );
  },
);

test('evaluation weighs every predicted token the same and restores the mode', async (t) => {
  const { dir, dataset } = await corpus(t);
  const { model } = tinyRun(dataset);
  model.train();
  const batches: Batch[] = [];
  for await (const batch of new DataLoader({
    dataset,
    batchSize: 3,
    sequenceLength: 16,
    split: 'validation',
  })) {
    batches.push(batch);
  }
  t.true((batches.at(-1)?.batchSize ?? 3) < 3 || batches.at(-1)?.labels.includes(-100));
  const { loss, perplexity, tokens } = await evaluate(model, batches);
  t.true(model.training);
  t.is(tokens, sum(batches.map(countPredicted)));
  t.is(perplexity, Math.exp(loss));
  model.eval();
  let expected = 0;
  for (const batch of batches) {
    const { crossEntropy } = noGrad(() => scope(() => model.forward(batchInputs(batch, 'cpu'))));
    expected += ((await crossEntropy?.item()) ?? NaN) * countPredicted(batch);
  }
  t.true(Math.abs(loss - expected / tokens) < 1e-6);
  t.is(model.forwardCount, 0, 'evaluation draws no random numbers');

  const files = join(dir, 'held-out.txt');
  await writeFile(files, 'abcdefghijklmnop\nqrs\nt\nuvwxyzabcdefg');
  const streamed: Batch[] = [];
  const options = { tokenizer, batchSize: 2, sequenceLength: 5 };
  for await (const batch of streamedBatches(readDocuments({ files, delimiter: '\n' }), options))
    streamed.push(batch);
  t.deepEqual(
    streamed.map(({ batchSize }) => batchSize),
    [2, 2, 2, 2],
  );
  t.deepEqual([...(streamed[1]?.documentStarts ?? [])], [0, 0, 0, 0, 0, 0, 0, 2, 2, 2]);
  await t.throwsAsync(evaluate(model, []), { instanceOf: DataError });
});

test('evaluations during training are recorded and do not change it', async (t) => {
  const { dir, dataset } = await corpus(t);
  const runDir = join(dir, 'run');
  const validated = tinyRun(dataset, { runDir, validation: held(dataset), evaluateEvery: 3 });
  const result = await new Trainer(validated).run();
  const metrics = await readMetrics(join(runDir, 'metrics.jsonl'));
  t.deepEqual(
    metrics.filter(({ validation }) => validation).map(({ step }) => step),
    [3, 6, 8],
  );
  t.is(metrics.at(-1)?.validation?.loss, result.validation?.loss);
  const plain = tinyRun(dataset);
  await new Trainer(plain).run();
  t.deepEqual(await weightsOf(plain), await weightsOf(validated));
});

test('a run is not mixed with another one', async (t) => {
  const { dir, dataset } = await corpus(t);
  const runDir = join(dir, 'run');
  await new Trainer(tinyRun(dataset, { runDir, steps: 3 })).run();
  await t.throwsAsync(new Trainer(tinyRun(dataset, { runDir })).run(), {
    instanceOf: DataError,
    message: /holds checkpoints of another run/,
  });
  const changes: [Parameters<typeof tinyRun>[1], RegExp][] = [
    [{ clipNorm: 2 }, /made with clipNorm 1, given is 2/],
    [{ accumulationSteps: 2 }, /made with accumulationSteps 1, given is 2/],
    [{ config: { resid_pdrop: 0 } }, /made with model\.resid_pdrop 0.1, given is 0/],
  ];
  for (const [change, message] of changes) {
    await t.throwsAsync(new Trainer(tinyRun(dataset, { runDir, ...change })).resume(), {
      instanceOf: CheckpointError,
      message,
    });
  }
  const finished = await new Trainer(
    tinyRun(dataset, { runDir, steps: 3, validation: held(dataset) }),
  ).resume();
  t.is(finished.step, 3);
  t.is(finished.last, undefined);
  t.truthy(finished.validation);
  const { model: config } = JSON.parse(await readFile(join(runDir, 'config.json'), 'utf8')) as {
    model: object;
  };
  t.like(config, { n_embd: 16, n_layer: 2 });
});

test('impossible options are refused before anything is done', async (t) => {
  const { dataset } = await corpus(t);
  const validation = held(dataset);
  const cases: [Parameters<typeof tinyRun>[1], RegExp][] = [
    [{ steps: 0 }, /steps must be an integer of at least 1, got 0/],
    [{ checkpointEvery: 1.5 }, /checkpointEvery .* got 1.5/],
    [{ clipNorm: -1 }, /clipNorm must be above 0/],
    [{ train: validation }, /train must be a loader of the split 'train'/],
    [{ validation: tinyRun(dataset).train }, /validation must be a loader/],
  ];
  for (const [options, message] of cases) {
    t.throws(() => new Trainer(tinyRun(dataset, options)), { instanceOf: ValueError, message });
  }
  t.throws(() => new Trainer(tinyRun(dataset, { tokenizer: letterTokenizer(26, true, 5) })), {
    instanceOf: DataError,
    message: /tokenizer has 32 ids, the model's vocab_size is 27/,
  });
  t.throws(() => new Trainer(tinyRun(dataset, { config: { vocab_size: 20 } })), {
    instanceOf: DataError,
    message: /vocab_size is only 20/,
  });
  const trainer = new Trainer(tinyRun(dataset));
  await t.throwsAsync(trainer.resume(), { instanceOf: ValueError, message: /runDir/ });
  await trainer.run();
  await t.throwsAsync(trainer.run(), { instanceOf: ValueError, message: /runs once/ });
});

test.serial('training holds no more memory with every step', async (t) => {
  const { dataset } = await corpus(t);
  const options = tinyRun(dataset, { steps: 30 });
  const live: number[] = [];
  const onStep = ({ step }: { step: number }): void => {
    if (step === 10 || step === 28) live.push(native.memoryStats().live);
  };
  await new Trainer({ ...options, onStep }).run();
  // Losses that do not count leave some bytes to the garbage collector.
  const [early = NaN, late = NaN] = live;
  t.true(late - early < 18 * 1024, `${late - early} bytes in 18 steps`);
});

function held(dataset: Awaited<ReturnType<typeof tinyDataset>>): DataLoader {
  return new DataLoader({ dataset, batchSize: 4, sequenceLength: 16, split: 'validation' });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function startChild(dataDir: string, runDir: string, steps: number, threads: number) {
  const script = fileURLToPath(new URL('support/train-child.ts', import.meta.url));
  return spawn(process.execPath, ['--import=tsx', script, dataDir, runDir, String(steps), String(threads)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

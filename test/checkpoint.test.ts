import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DataLoader } from '../lib/data/loader.js';
import { Tokenizer } from '../lib/data/tokenizer.js';
import { CheckpointError, DataError } from '../lib/errors.js';
import { constantSchedule } from '../lib/optimizer/schedule.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import {
  checkpointDir,
  checkpointSteps,
  latestCheckpoint,
  removeCheckpointLeftovers,
  rotateCheckpoints,
  STATE_FILE,
  verifyCheckpoint,
} from '../lib/training/checkpoint-files.js';
import { loadTrainingCheckpoint, saveTrainingCheckpoint } from '../lib/training/checkpoint.js';
import { Trainer } from '../lib/training/trainer.js';
import { mountTmpfs, temporaryDirectory } from './support/files.js';
import { checkpointBytes, tinyDataset, tinyRun, tokenizer } from './support/training.js';

const constant = constantSchedule({ lr: 0.01 });

/** A run of two steps that has checkpoints of both. */
async function shortRun(t: ExecutionContext) {
  const dir = await temporaryDirectory(t);
  const dataset = await tinyDataset(join(dir, 'corpus'));
  const runDir = join(dir, 'run');
  const options = tinyRun(dataset, { runDir, steps: 2, checkpointEvery: 1, tokenizer });
  await new Trainer(options).run();
  return { dir, dataset, runDir, options };
}

test('a checkpoint is a directory that loads by itself, with all that a run needs to go on', async (t) => {
  const { runDir, options } = await shortRun(t);
  t.deepEqual(await checkpointSteps(runDir), [1, 2]);
  const latest = await latestCheckpoint(runDir);
  t.is(latest, checkpointDir(runDir, 2));
  const dir = latest as string;
  t.deepEqual((await readdir(dir)).sort(), [
    'config.json',
    'model.safetensors',
    'optimizer.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
    'trainer.json',
  ]);
  const model = await ModuleFormerForCausalLM.fromPretrained(dir);
  for (const [name, parameter] of options.model.namedParameters()) {
    const loaded = new Map(model.namedParameters()).get(name);
    t.deepEqual(await loaded?.data(), await parameter.data(), name);
  }
  t.is((await Tokenizer.fromPretrained(dir)).hash, tokenizer.hash);
  const state = await verifyCheckpoint(dir);
  t.is(state.step, 2);
  t.is(state.tokens, 2 * 2 * 16);
  t.is(state.model.forwardCount, 2);
  t.is(state.loader?.position, 4);
  t.regex(state.versions['moduleformer'] ?? '', /^\d/);
});

test('loading restores weights, moments, counts and the position of the data, for every dtype', async (t) => {
  const dir = await temporaryDirectory(t);
  const dataset = await tinyDataset(join(dir, 'corpus'));
  for (const dtype of ['f32', 'bf16', 'f64'] as const) {
    const runDir = join(dir, dtype);
    await new Trainer(tinyRun(dataset, { dtype, runDir, steps: 3 })).run();
    const saved = checkpointDir(runDir, 3);
    const { model, optimizer, train } = tinyRun(dataset, { dtype });
    await loadTrainingCheckpoint(saved, { model, optimizer, train });
    const again = await saveTrainingCheckpoint(join(dir, `${dtype}-again`), {
      model,
      optimizer,
      train,
      step: 3,
      tokens: 0,
      elapsedSeconds: 0,
    });
    t.deepEqual(await checkpointBytes(again), await checkpointBytes(saved), dtype);
    t.is(model.forwardCount, 3);
    t.deepEqual(train.state().position, 6);
  }
});

test('whatever does not fit is named, and nothing is changed', async (t) => {
  const { dataset, runDir } = await shortRun(t);
  const saved = checkpointDir(runDir, 2);
  const fresh = tinyRun(dataset);
  const wider = tinyRun(dataset, { config: { n_embd: 32 } });
  const bf16 = tinyRun(dataset, { dtype: 'bf16' });
  const [parameter] = fresh.model.parameters();
  const before = await parameter?.data();
  const settings = { clipNorm: 2 };
  const cases: [() => Promise<unknown>, RegExp][] = [
    [() => loadTrainingCheckpoint(saved, wider), /nothing was loaded: transformer.* has shape/],
    [() => loadTrainingCheckpoint(saved, bf16), /made with dtype "f32", given is "bf16"/],
    [() => loadTrainingCheckpoint(saved, { ...fresh, settings }), /made with .*, given is/],
  ];
  for (const [load, message] of cases) {
    await t.throwsAsync(load, { instanceOf: CheckpointError, message });
  }
  const train = new DataLoader({ dataset, batchSize: 2, sequenceLength: 8, seed: 3 });
  await t.throwsAsync(loadTrainingCheckpoint(saved, { ...fresh, train }), {
    instanceOf: DataError,
    message: /sequenceLength is 16, this loader's is 8/,
  });
  t.deepEqual(await parameter?.data(), before);
  t.is(fresh.model.forwardCount, 0);
  t.is(wider.train.state().position, 0);
});

test('the latest checkpoint is the newest intact one, whatever a crash or a bad disk left', async (t) => {
  const { runDir } = await shortRun(t);
  const [first, second] = [checkpointDir(runDir, 1), checkpointDir(runDir, 2)];
  await mkdir(`${checkpointDir(runDir, 3)}.tmp-77-0`);
  await mkdir(`${first}.old-77-1`);
  t.is(await latestCheckpoint(runDir), second);

  const weights = join(second, 'model.safetensors');
  const bytes = await readFile(weights);
  const damages: [string, () => Promise<void>][] = [
    ['a flipped bit', () => writeFile(weights, flipped(bytes, bytes.length - 3))],
    ['a file cut short', () => writeFile(weights, bytes.subarray(0, bytes.length - 4))],
    ['a missing file', () => rm(weights)],
  ];
  for (const [what, damage] of damages) {
    await damage();
    t.is(await latestCheckpoint(runDir), first, what);
    await writeFile(weights, bytes);
    t.is(await latestCheckpoint(runDir), second);
  }
  const state = join(second, STATE_FILE);
  const text = await readFile(state, 'utf8');
  for (const damaged of [text.replace('"step": 2', '"step": 4'), text.slice(0, 40), '{}']) {
    await writeFile(state, damaged);
    t.is(await latestCheckpoint(runDir), first);
    await t.throwsAsync(verifyCheckpoint(second), { instanceOf: CheckpointError, message: /trainer\.json/ });
  }
  await rm(join(first, 'config.json'));
  await t.throwsAsync(latestCheckpoint(runDir), {
    instanceOf: CheckpointError,
    message: /every checkpoint is damaged: .*trainer\.json.*config\.json/s,
  });
  t.is(await latestCheckpoint(join(runDir, 'none')), undefined);
});

test('leftovers of killed writers are removed, and a directory that was cut off between its renames is completed', async (t) => {
  const { runDir } = await shortRun(t);
  const dir = checkpointDir(runDir, 2);
  await mkdir(`${checkpointDir(runDir, 3)}.tmp-77-0`);
  await mkdir(checkpointDir(runDir, 4)); // half removed
  await writeFile(join(checkpointDir(runDir, 4), 'config.json'), '{}');
  await mkdir(`${dir}.old-77-2`);
  await rename(dir, `${dir}.tmp-77-2`);
  await removeCheckpointLeftovers(runDir);
  t.deepEqual((await readdir(join(runDir, 'checkpoints'))).sort(), ['step-000001', 'step-000002']);
  t.is(await latestCheckpoint(runDir), dir);
});

test('rotation keeps the newest, and files that are not its own', async (t) => {
  const { runDir } = await shortRun(t);
  await writeFile(join(checkpointDir(runDir, 1), 'notes.txt'), 'mine');
  await rotateCheckpoints(runDir, 5);
  t.deepEqual(await checkpointSteps(runDir), [1, 2]);
  await rotateCheckpoints(runDir, 1);
  t.deepEqual(await checkpointSteps(runDir), [2]);
  t.deepEqual(await readdir(checkpointDir(runDir, 1)), ['notes.txt']);
  t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 2));
  await t.throwsAsync(rotateCheckpoints(runDir, 0), { message: /keepCheckpoints must be an integer/ });
});

test('rotation never counts on a damaged checkpoint of a later step', async (t) => {
  const { dataset, runDir } = await shortRun(t);
  await writeFile(join(checkpointDir(runDir, 2), 'optimizer.safetensors'), 'damaged');
  const { model, optimizer } = tinyRun(dataset);
  await saveTrainingCheckpoint(runDir, { model, optimizer, step: 0, tokens: 0, elapsedSeconds: 0 });
  await rotateCheckpoints(runDir, 1, 1);
  t.deepEqual(await checkpointSteps(runDir), [1, 2]);
  t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 1));
});

test('a full disk fails the save and the run, and the checkpoint before stays whole', async (t) => {
  const disk = await mountTmpfs(t, '800k');
  if (disk === undefined) return;
  const dataset = await tinyDataset(join(await temporaryDirectory(t), 'corpus'));
  const runDir = join(disk, 'run');
  await new Trainer(tinyRun(dataset, { runDir, steps: 1, schedule: constant })).run();
  await writeFile(join(disk, 'filler'), Buffer.alloc(600_000));
  await t.throwsAsync(new Trainer(tinyRun(dataset, { runDir, steps: 2, schedule: constant })).resume(), {
    instanceOf: CheckpointError,
    message: /cannot write .*ENOSPC/,
  });
  t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 1));
  await rm(join(disk, 'filler'));
  const { step } = await new Trainer(tinyRun(dataset, { runDir, steps: 2, schedule: constant })).resume();
  t.is(step, 2);
});

test('a read-only disk fails the save and the run, and the checkpoint before stays whole', async (t) => {
  const disk = await mountTmpfs(t, '2m');
  if (disk === undefined) return;
  const dataset = await tinyDataset(join(await temporaryDirectory(t), 'corpus'));
  const runDir = join(disk, 'run');
  const onStep = ({ step }: { step: number }): void => {
    if (step === 2) execFileSync('mount', ['-o', 'remount,ro', disk]);
  };
  await t.throwsAsync(new Trainer(tinyRun(dataset, { runDir, checkpointEvery: 1, onStep })).run(), {
    message: /EROFS/,
  });
  t.is(await latestCheckpoint(runDir), checkpointDir(runDir, 1));
  execFileSync('mount', ['-o', 'remount,rw', disk]);
  t.is((await new Trainer(tinyRun(dataset, { runDir })).resume()).status, 'finished');
});

test('a file in the place of the directory of checkpoints is named', async (t) => {
  const dir = await temporaryDirectory(t);
  const dataset = await tinyDataset(join(dir, 'corpus'));
  await writeFile(join(dir, 'checkpoints'), '');
  const { model, optimizer } = tinyRun(dataset);
  const checkpoint = { model, optimizer, step: 1, tokens: 0, elapsedSeconds: 0 };
  await t.throwsAsync(saveTrainingCheckpoint(dir, checkpoint), {
    instanceOf: CheckpointError,
    message: /checkpoints/,
  });
});

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] as number) ^ 1;
  return copy;
}

import { spawn } from 'node:child_process';
import path from 'node:path';
import test from 'ava';
import { noGrad } from '../lib/autograd/index.js';
import { KernelError } from '../lib/errors.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { numbers } from './support/compare.js';
import { temporaryDirectory } from './support/files.js';
import { transpile } from './support/transpile.js';
import { TinyRun } from './fixtures/robustness/train.js';

let fixtures: Awaited<ReturnType<typeof transpile>>;

test.before(async () => {
  fixtures = await transpile('test/fixtures/robustness');
});

test.after.always(() => fixtures.remove());

interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs a scenario to its end; one that hangs is killed, which its ending then shows. */
function play(
  name: string,
  options: { timeout?: number; signalWhenReady?: NodeJS.Signals } = {},
): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--expose-gc', path.join(fixtures.dir, 'scenario.js'), name], {
      timeout: options.timeout ?? 60_000,
      killSignal: 'SIGKILL',
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data: Buffer) => {
      stdout += data.toString();
      if (options.signalWhenReady) child.kill(options.signalWhenReady);
    });
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

async function resultOf<T>(name: string, timeout?: number): Promise<T> {
  const { code, signal, stdout, stderr } = await play(name, timeout ? { timeout } : {});
  if (code !== 0) throw new Error(`${name} ended with ${code ?? signal}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

test('a process with work in flight ends as it wants to', async (t) => {
  const finish = await play('finish');
  t.deepEqual([finish.code, finish.signal, finish.stderr], [0, null, '']);
  const exit = await play('exit');
  t.deepEqual([exit.code, exit.signal, exit.stderr], [3, null, '']);
  for (const name of ['throw', 'reject', 'rejectedWait']) {
    const { code, signal, stderr } = await play(name);
    t.deepEqual([code, signal], [1, null], name);
    t.regex(stderr, name === 'rejectedWait' ? /KernelError: .*groupedGemm/ : /Error: on purpose/);
  }
});

test('signals end a process in mid-training', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const) {
    const ending = await play('trainForever', { signalWhenReady: signal });
    t.deepEqual(
      [ending.code, ending.signal, ending.stdout, ending.stderr],
      [null, signal, '"training"\n', ''],
    );
  }
});

test('a failure that nobody handles leaves the rest running', async (t) => {
  const { reasons, loss } = await resultOf<{ reasons: string[]; loss: number }>('unhandledRejection');
  t.is(reasons.length, 1);
  t.regex(reasons[0] ?? '', /KernelError: .*groupedGemm/);
  t.true(Number.isFinite(loss));
});

test('memory stays flat over 2000 steps', async (t) => {
  const seen = await resultOf<{ rss: number; heap: number; live: number; tensors: number }[]>(
    'flat',
    240_000,
  );
  t.is(seen.length, 10);
  t.is(new Set(seen.map(({ live }) => live)).size, 1, JSON.stringify(seen));
  t.is(new Set(seen.map(({ tensors }) => tensors)).size, 1, JSON.stringify(seen));
  for (const [name, limit] of [
    ['heap', 2e6],
    ['rss', 32e6],
  ] as const) {
    const [, ...settled] = seen.map((moment) => moment[name]);
    const growth = Math.max(...settled) - (settled[0] as number);
    t.true(growth < limit, `${name} grew by ${growth} bytes: ${JSON.stringify(seen)}`);
  }
});

test.serial('a tape that no backward uses is freed with its scope', async (t) => {
  const run = new TinyRun();
  await run.step().item();
  const before = native.memoryStats().tensors;
  scope(() => {
    const out = run.model.forward(run.inputs());
    t.true(native.memoryStats().tensors > before + 100);
    t.truthy(out.loss);
  });
  t.is(native.memoryStats().tensors, before);
});

test.serial('the event loop turns while the stream works', async (t) => {
  const { model } = new TinyRun();
  const inputIds = Array.from({ length: 4 }, () => Array.from({ length: 1024 }, (_, i) => i % 64));
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const losses = Array.from({ length: 20 }, () =>
    scope(() => noGrad(() => model.forward({ inputIds, labels: inputIds }).loss)),
  );
  const enqueued = turns;
  await losses.at(-1)?.item();
  clearInterval(timer);
  t.is(enqueued, 0);
  t.true(turns >= 10, `${turns} turns`);
});

test('a loop that forgets its tapes stays bounded', async (t) => {
  const { peak, rss } = await resultOf<{ peak: number; rss: number }>('forget', 120_000);
  t.true(peak < 400e6, `peak ${peak}`);
  t.true(rss < 1e9, `resident ${rss}`);
});

test('a hundred workers terminated in mid-training', async (t) => {
  const { codes, loss } = await resultOf<{ codes: number[]; loss: number }>('workers', 240_000);
  t.deepEqual(codes, Array<number>(100).fill(1));
  t.true(Number.isFinite(loss));
});

test('a handle of another thread is recognised', async (t) => {
  for (const answer of await resultOf<string[]>('foreignHandle')) {
    t.regex(answer, /^HandleError: .*is disposed, or a tensor of another thread/);
  }
});

const forwardOps = ['groupedGemm', 'attention', 'routerLoss'];
const backwardOps = ['crossEntropyBackward', 'layerNormBackward', 'gradNorm'];

for (const op of [...forwardOps, ...backwardOps]) {
  test.serial(`${op} failing in mid-step: the step is not applied, and the next wait says so`, async (t) => {
    const dir = await temporaryDirectory(t);
    const run = new TinyRun();
    await run.step().item();
    await run.model.savePretrained(dir);
    const before = await Promise.all([...run.model.parameters()].map(numbers));
    native.failNext(op);
    const loss = run.step();
    const waits = [
      ...[...run.model.parameters()].map(numbers),
      ...(forwardOps.includes(op) ? [loss.item()] : []),
    ];
    for (const result of await Promise.allSettled(waits)) {
      if (result.status === 'fulfilled') return t.fail('a wait on what the failure spoiled was fulfilled');
      t.true(result.reason instanceof KernelError);
      t.regex((result.reason as Error).message, new RegExp(op));
    }
    if (backwardOps.includes(op)) t.true(Number.isFinite(await loss.item()));
    // Nothing short of new values makes the parameters usable again.
    t.false(
      await run
        .step()
        .item()
        .then(
          () => true,
          () => false,
        ),
    );
    await run.model.loadWeights(dir);
    t.deepEqual(await Promise.all([...run.model.parameters()].map(numbers)), before);
  });
}

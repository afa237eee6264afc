import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { syntheticTexts } from './support/data.js';
import { temporaryDirectory } from './support/files.js';
import { checkpointBytes, tokenizer } from './support/training.js';

const main = fileURLToPath(new URL('../lib/cli/main.ts', import.meta.url));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[], env: Record<string, string> = {}) {
  return spawn(process.execPath, ['--import=tsx', main, ...args], {
    env: { ...process.env, MODULEFORMER_DEBUG: '', ...env },
  });
}

async function moduleformer(...args: string[]): Promise<Outcome> {
  return finish(start(args));
}

async function finish(child: ReturnType<typeof start>, input = ''): Promise<Outcome> {
  child.stdin.end(input);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return { code, stdout, stderr };
}

/** A corpus and a config for a run of some seconds at most. */
async function setUp(t: ExecutionContext, changes: Record<string, unknown> = {}) {
  const dir = await temporaryDirectory(t);
  const corpus = join(dir, 'corpus.txt');
  await writeFile(
    corpus,
    syntheticTexts(300)
      .map((line) => line.replace(/[^a-z]/g, ''))
      .join('\n'),
  );
  await tokenizer.save(join(dir, 'tokenizer'));
  const config = join(dir, 'config.json');
  const runDir = join(dir, 'run');
  const fields = {
    runDir,
    preset: 'tiny',
    model: { n_embd: 16, att_hidden: 16, ffd_hidden: 16, n_layer: 2, resid_pdrop: 0.1 },
    data: { files: [corpus], delimiter: '\n', validationFraction: 0.1 },
    tokenizer: { path: join(dir, 'tokenizer') },
    sequenceLength: 16,
    batchSize: 2,
    steps: 6,
    threads: 1,
    ...changes,
  };
  await writeFile(config, JSON.stringify(fields));
  return { dir, corpus, config, runDir };
}

/** One line that begins with the program's name, and no stack. */
function isOneLine(stderr: string): boolean {
  return /^moduleformer: [^\n]+\n$/.test(stderr);
}

test('help, with examples, comes from every command and ends with code 0', async (t) => {
  const commands = [[], ['train'], ['eval'], ['generate'], ['inspect'], ['tokenizer', 'train']];
  const outcomes = await Promise.all(commands.map((command) => moduleformer(...command, '--help')));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    t.is(code, 0);
    t.is(stderr, '');
    t.regex(stdout, /Examples:\n {2}\$ moduleformer /, commands[i]?.join(' ') ?? '');
  }
  const { code, stdout } = await moduleformer('--version');
  t.is(code, 0);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
});

test('wrong usage ends with code 2 and one line', async (t) => {
  const cases: [string[], RegExp][] = [
    [['trian'], /unknown command 'trian' \(Did you mean train\?\)/],
    [['train', '--steps', 'many'], /'--steps <n>' argument 'many' is invalid. expected an integer/],
    [['train', '--step', '3'], /unknown option '--step' \(Did you mean --steps\?\)/],
    [['generate', 'x', '--top-p', '2'], /expected a number from 0 to 1/],
    [['eval', 'x'], /required option '--data <file...>'/],
    [['train', '--dtype', 'f16'], /Allowed choices are f32, bf16, f64/],
  ];
  const outcomes = await Promise.all(cases.map(([args]) => moduleformer(...args)));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    t.is(code, 2);
    t.is(stdout, '');
    t.true(isOneLine(stderr), stderr);
    t.regex(stderr, cases[i]?.[1] as RegExp);
  }
});

test('a config file with unknown or impossible values is refused with their names, before anything is written', async (t) => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ stpes: 3 }, /unknown field "stpes", did you mean "steps"/],
    [{ steps: 0 }, /steps: expected a positive integer, got 0/],
    [{ preset: 'huge' }, /unknown preset "huge", expected one of .*tiny/],
    [{ model: { k_att: 99 } }, /k_att \(99\) must be at most n_att_experts \(8\)/],
    [{ model: { n_heads: 2 } }, /unknown field "n_heads", did you mean "n_head"/],
    [
      { schedule: { type: 'cosine', warmupSteps: 100 } },
      /totalSteps must be at least 1 and not below warmupSteps/,
    ],
    [{ optimizer: { betas: [0.9, 1] } }, /optimizer.betas.1: expected a number in \[0, 1\), got 1/],
    [{ data: {} }, /data.files: /],
  ];
  await Promise.all(
    cases.map(async ([changes, message]) => {
      const { config, dir } = await setUp(t, changes);
      const { code, stderr } = await moduleformer('train', config);
      t.is(code, 1);
      t.true(isOneLine(stderr), stderr);
      t.regex(stderr, message);
      t.false((await readdir(dir)).includes('run'));
    }),
  );
});

test('train, inspect, eval and generate, for people and for scripts', async (t) => {
  const { config, corpus, runDir } = await setUp(t);
  const trained = await moduleformer('train', config);
  t.is(trained.code, 0, trained.stderr);
  t.regex(trained.stdout, /^backend: cpu \(.*\), by /);
  t.regex(trained.stdout, /step 6\/6 100%/);
  t.regex(trained.stdout, /held-out perplexity +\d/);
  t.deepEqual((await readdir(runDir)).sort(), [
    'checkpoints',
    'config.json',
    'data',
    'metrics.jsonl',
    'report.html',
    'summary.json',
    'tokenizer',
    'train.json',
  ]);

  const inspected = await moduleformer('inspect', runDir, '--json');
  t.like(JSON.parse(inspected.stdout), {
    checkpoint: join(runDir, 'checkpoints', 'step-000006'),
    config: { vocab_size: 27, n_layer: 2 },
    training: { step: 6, tokens: 6 * 2 * 16 },
    tokenizer: { vocabSize: 27, eosId: 0 },
  });
  const { parameters, tensors, dtypes } = JSON.parse(inspected.stdout) as {
    parameters: { total: number; active: number };
    tensors: { shape: number[] }[];
    dtypes: Record<string, number>;
  };
  const elements = tensors.map(({ shape }) => shape.reduce((product, size) => product * size, 1));
  t.is(
    elements.reduce((sum, count) => sum + count, 0),
    parameters.total,
  );
  t.true(parameters.active < parameters.total);
  t.deepEqual(dtypes, { F32: 4 * parameters.total });
  t.regex((await moduleformer('inspect', runDir)).stdout, /experts\.weight +F32 \[8, 16, 16\] in 2 blocks/);

  const evaluated = await moduleformer('eval', runDir, '--data', corpus, '--delimiter', '\n', '--json');
  const { perplexity, loss } = JSON.parse(evaluated.stdout) as { perplexity: number; loss: number };
  t.is(perplexity, Math.exp(loss));
  t.true(perplexity > 1 && perplexity < 27 * 1.1);

  const args = ['generate', runDir, '--prompt', 'abc', '--max-new-tokens', '20', '--ignore-eos'];
  const [plain, json, piped] = await Promise.all([
    moduleformer(...args),
    moduleformer(...args, '--json'),
    finish(start(['generate', runDir, '--max-new-tokens', '20', '--ignore-eos']), 'abc\n'),
  ]);
  const generated = JSON.parse(json.stdout) as { prompt: string; text: string; tokens: number[] };
  t.is(generated.prompt, 'abc');
  t.is(generated.tokens.length, 20);
  t.is(plain.stdout, `abc${generated.text}\n`);
  t.is(piped.stdout, plain.stdout, 'the prompt can come from standard input');
});

test('a run that SIGTERM ends saves a checkpoint, and goes on to the bits of an uninterrupted one', async (t) => {
  const { config, runDir, dir } = await setUp(t, { steps: 600, checkpointEvery: 1000 });
  const child = start(['train', config, '--json']);
  for (;;) {
    const lines = (await readFile(join(runDir, 'config.json'), 'utf8').catch(() => '')).length;
    if (lines > 0) break;
    await setTimeout(10);
  }
  await setTimeout(100);
  child.kill('SIGTERM');
  const stopped = await finish(child);
  t.is(stopped.code, 143, stopped.stderr);
  t.regex(stopped.stderr, /SIGTERM: finishing this step, then saving a checkpoint/);
  const { status, step, checkpoint } = JSON.parse(stopped.stdout) as {
    status: string;
    step: number;
    checkpoint: string;
  };
  t.is(status, 'aborted');
  t.true(step < 600);
  t.deepEqual(await readdir(join(runDir, 'checkpoints')), [checkpoint.split('/').at(-1)]);

  const again = await moduleformer('train', config);
  t.is(again.code, 1);
  t.regex(again.stderr, /holds another run; give --resume/);
  const other = join(dir, 'other');
  const [resumed, whole] = await Promise.all([
    moduleformer('train', '--resume', runDir, '--threads', '2', '--json'),
    moduleformer('train', config, '--run-dir', other, '--json'),
  ]);
  t.is(resumed.code, 0, resumed.stderr);
  t.is(whole.code, 0, whole.stderr);
  const last = join('checkpoints', 'step-000600');
  t.deepEqual(await checkpointBytes(join(runDir, last)), await checkpointBytes(join(other, last)));
});

test('failures end with code 1 and one line, and with a stack only when asked for', async (t) => {
  const { dir, config, corpus } = await setUp(t, { model: { vocab_size: 20 } });
  const cases: [string[], RegExp][] = [
    [['train', config], /tokenizer has 27 ids, the model's vocab_size is 20/],
    [['train', '--resume', join(dir, 'none')], /there is no run to resume/],
    [['inspect', dir], /neither a checkpoint .* nor a run/],
    [['generate', join(dir, 'none'), '--prompt', 'a'], /no checkpoint: ENOENT/],
    [['tokenizer', 'train', join(dir, 'none.txt'), '--out', join(dir, 'out')], /none.txt does not exist/],
    [['tokenizer', 'train', corpus, '--out', corpus, '--vocab-size', '300'], /corpus.txt/],
  ];
  const outcomes = await Promise.all(cases.map(([args]) => moduleformer(...args)));
  for (const [i, { code, stderr }] of outcomes.entries()) {
    t.is(code, 1);
    t.true(isOneLine(stderr), stderr);
    t.regex(stderr, cases[i]?.[1] as RegExp);
  }
  const debug = await finish(start(['inspect', dir], { MODULEFORMER_DEBUG: '1' }));
  t.is(debug.code, 1);
  t.regex(debug.stderr, /\n {4}at /);
});

test('a checkpoint of a classifier is counted with its own head', async (t) => {
  const { stdout } = await moduleformer('inspect', 'test/golden/classification', '--json');
  const { head, parameters, dtypes } = JSON.parse(stdout) as {
    head: string;
    parameters: { total: number };
    dtypes: object;
  };
  t.is(head, 'classification');
  t.deepEqual(dtypes, { F32: 4 * parameters.total });
});

test('the machine is described, with the reason for a missing device', async (t) => {
  const { code, stdout } = await moduleformer('inspect');
  t.is(code, 0);
  t.regex(stdout, /instruction sets +.*\(used\)/);
  const machine = JSON.parse((await moduleformer('inspect', '--json')).stdout) as {
    processor: { threads: number };
    cuda: { available: boolean; reason?: string };
    backend: string;
  };
  t.true(machine.processor.threads >= 1);
  t.true(machine.cuda.available || /without CUDA|driver|device/.test(machine.cuda.reason ?? ''));
  t.regex(machine.backend, /^cpu \(.*\), by /);
});

test('a tokenizer is trained', async (t) => {
  const { dir } = await setUp(t);
  const files = join(dir, 'words.txt');
  await writeFile(files, syntheticTexts(2000).join('\n'));
  const out = join(dir, 'trained');
  const { code, stdout, stderr } = await moduleformer(
    'tokenizer',
    'train',
    files,
    ...['--vocab-size', '400', '--out', out, '--json'],
  );
  t.is(code, 0, stderr);
  t.like(JSON.parse(stdout), { out, vocabSize: 400, eosId: 0 });
  t.deepEqual((await readdir(out)).sort(), ['tokenizer.json', 'tokenizer_config.json']);
});

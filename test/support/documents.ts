import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A fenced block of a document. Its fence says the language and, with `run`, that the test executes it. */
export interface CodeBlock {
  file: string;
  line: number;
  language: string;
  isRun: boolean;
  source: string;
}

/** What is executed as one process: a shell block, or TypeScript blocks that follow one another, one module together. */
export interface Part {
  language: 'ts' | 'sh';
  /** The block it begins with, for messages. */
  where: string;
  source: string;
}

export function documents(): string[] {
  const guides = readdirSync('docs', { recursive: true })
    .map((name) => join('docs', String(name)))
    .filter((name) => name.endsWith('.md'));
  return ['README.md', 'CONTRIBUTING.md', ...guides.sort()];
}

export function codeBlocks(file: string, language: string): CodeBlock[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/^```(\w+)( run)?\n([\s\S]*?)^```$/gm)]
    .filter(([, found]) => found === language || language === '')
    .map(({ 1: found = '', 2: run, 3: source = '', index }) => ({
      file,
      line: text.slice(0, index).split('\n').length,
      language: found,
      isRun: run !== undefined,
      source,
    }));
}

/** What of a document is executed, in order. */
export function parts(file: string): Part[] {
  const result: Part[] = [];
  for (const { language, isRun, source, line } of codeBlocks(file, '')) {
    if (!isRun || (language !== 'ts' && language !== 'sh')) continue;
    const last = result.at(-1);
    if (last?.language === 'ts' && language === 'ts') last.source += source;
    else result.push({ language, where: `${file}:${line}`, source });
  }
  return result;
}

/** A document's TypeScript as modules: what runs together, and each other block by itself. */
export function modules(file: string): Part[] {
  const single = codeBlocks(file, 'ts').filter(({ isRun }) => !isRun);
  return [
    ...parts(file).filter(({ language }) => language === 'ts'),
    ...single.map(({ line, source }): Part => ({ language: 'ts', where: `${file}:${line}`, source })),
  ];
}

/** The name of the module of a part. */
export function moduleName({ where }: Part): string {
  return `${where.replaceAll(/[^a-zA-Z0-9]/g, '-')}.ts`;
}

/** Writes a part as a module below the repository, where 'moduleformer' means the sources. */
export async function writeModule(part: Part, dir: string, toRoot: string): Promise<string> {
  const path = join(dir, moduleName(part));
  await writeFile(path, part.source.replaceAll("from 'moduleformer'", `from '${toRoot}/lib/index.js'`));
  return path;
}

/** The texts say how many steps are worth while; a test that they run needs a few. */
export function withFewSteps(source: string, most = 4): string {
  return source.replaceAll(
    /(--steps |\bsteps"?(?: =|:) )(\d+)/gi,
    (_, before: string, count: string) => before + Math.min(most, Number(count)),
  );
}

/** Runs a part in `cwd`, a folder below the repository whose root is `toRoot`; resolves to what it printed. */
export async function runPart(part: Part, cwd: string, toRoot: string): Promise<string> {
  const few = { ...part, source: withFewSteps(part.source) };
  const env = { ...process.env, NODE_OPTIONS: '' };
  const run = async (command: string, args: readonly string[]): Promise<string> => {
    try {
      return (await promisify(execFile)(command, args, { cwd, env })).stdout;
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string };
      throw new Error(`${part.where} failed:\n${stdout}${stderr}`, { cause: error });
    }
  };
  if (part.language === 'ts') {
    await writeModule(few, cwd, toRoot);
    return run(process.execPath, ['--import=tsx', moduleName(part)]);
  }
  const moduleformer = `moduleformer() { "${process.execPath}" --import=tsx ${toRoot}/lib/cli/main.ts "$@"; }`;
  return run('bash', ['-euc', `${moduleformer}\n${few.source}`]);
}

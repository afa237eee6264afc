import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import ts from 'typescript';

const root = path.join(import.meta.dirname, '..', '..');

/**
 * Plain JavaScript of lib/ and of a folder of fixtures, for processes and worker threads without a TypeScript loader
 * (tsx does not reach the workers of Node 20). It lies in the package, as dist/ does, so that the addon is found.
 */
export async function transpile(fixtures: string): Promise<{ dir: string; remove: () => Promise<void> }> {
  await mkdir(path.join(root, 'build'), { recursive: true });
  const out = await mkdtemp(path.join(root, 'build', 'transpiled-'));
  for (const folder of ['lib', fixtures]) {
    const entries = await readdir(path.join(root, folder), { recursive: true });
    for (const entry of entries.filter((name) => name.endsWith('.ts'))) {
      const source = await readFile(path.join(root, folder, entry), 'utf8');
      const { outputText } = ts.transpileModule(source, {
        fileName: entry,
        compilerOptions: {
          target: ts.ScriptTarget.ES2022,
          module: ts.ModuleKind.ESNext,
          verbatimModuleSyntax: true,
        },
      });
      const target = path.join(out, folder, entry.replace(/\.ts$/, '.js'));
      await mkdir(path.dirname(target), { recursive: true });
      await writeFile(target, outputText);
    }
  }
  return { dir: path.join(out, fixtures), remove: () => rm(out, { recursive: true, force: true }) };
}

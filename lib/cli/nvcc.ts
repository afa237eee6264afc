import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ModuleFormerError } from '../errors.js';

/** The CUDA compiler: CUDACXX, else on PATH, else where the toolkit installs itself. @throws ModuleFormerError where there is none */
export function findNvcc(env: NodeJS.ProcessEnv = process.env): string {
  if (env['CUDACXX']) return env['CUDACXX'];
  const folders = [...(env['PATH'] ?? '').split(delimiter), '/usr/local/cuda/bin'];
  const found = folders.map((folder) => join(folder, 'nvcc')).find((file) => existsSync(file));
  if (found === undefined) {
    throw new ModuleFormerError('nvcc was not found: not in CUDACXX, on PATH or in /usr/local/cuda/bin');
  }
  return found;
}

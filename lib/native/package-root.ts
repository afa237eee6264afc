import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ModuleFormerError } from '../errors.js';

/** The folder of this package's package.json, from the sources as from dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      if (name === 'moduleformer') return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new ModuleFormerError('the package.json of moduleformer was not found');
    folder = parent;
  }
}

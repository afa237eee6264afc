import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

// To be imported before anything that loads the addon.
const { values } = parseArgs({ options: { device: { type: 'string', default: 'cpu' } }, strict: false });
if (values.device !== 'cpu' && values.device !== 'cuda') {
  console.error(`bench: --device is '${values.device}', expected cpu or cuda`);
  process.exit(2);
}

/** Where everything is measured: `--device cpu` (default) or `--device cuda`, with the addon of `npm run build:cuda`. */
export const benchDevice: 'cpu' | 'cuda' = values.device;

const built = join(process.cwd(), 'build-cuda', 'Release', 'moduleformer.node');
if (benchDevice === 'cuda' && existsSync(built)) process.env['MODULEFORMER_ADDON'] ??= built;

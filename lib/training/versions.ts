import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../native/load.js';
import { packageRoot } from '../native/package-root.js';

/** What computed a result: results are bit-identical only where these are the same. */
export function versions(): Record<string, string> {
  const manifest = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    version: string;
  };
  return {
    moduleformer: manifest.version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    instructionSet: native.instructionSets().chosen,
  };
}

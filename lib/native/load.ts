import bindings from 'bindings';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as errors from '../errors.js';
import type { NativeBinding } from './binding.js';

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
    if (parent === folder)
      throw new errors.ModuleFormerError('the package.json of moduleformer was not found');
    folder = parent;
  }
}

interface Attempt {
  what: string;
  load: () => NativeBinding;
}

function attempts(): Attempt[] {
  const require = createRequire(import.meta.url);
  const explicit = process.env['MODULEFORMER_ADDON'];
  if (explicit) {
    return [{ what: `MODULEFORMER_ADDON=${explicit}`, load: () => require(explicit) as NativeBinding }];
  }
  const root = packageRoot();
  return [
    {
      what: `local build in ${join(root, 'build')}`,
      load: () => bindings({ bindings: 'moduleformer', module_root: root }) as NativeBinding,
    },
  ];
}

function load(): NativeBinding {
  const failures: string[] = [];
  for (const { what, load } of attempts()) {
    try {
      const addon = load();
      // The order is that of ErrorKind in native/core/error.h.
      addon.setErrorClasses([
        errors.ShapeError,
        errors.DTypeError,
        errors.HandleError,
        errors.ValueError,
        errors.KernelError,
        errors.OutOfMemoryError,
        errors.AbortedError,
      ]);
      return addon;
    } catch (error) {
      failures.push(
        `  - ${what}: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)}`,
      );
    }
  }
  throw new errors.ModuleFormerError(
    `the native addon of moduleformer could not be loaded (${process.platform}-${process.arch}, Node ${process.version}). Tried:\n` +
      `${failures.join('\n')}\nBuild it from source with: npm run build:addon (needs CMake and a C++20 compiler)`,
  );
}

/** The addon, loaded once per environment (main thread or worker). */
export const native: NativeBinding = load();

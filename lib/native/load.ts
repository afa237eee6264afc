import bindings from 'bindings';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as errors from '../errors.js';
import type { NativeBinding } from './binding.js';
import { packageRoot } from './package-root.js';
import { platformName, whyNoGpu } from './platform.js';

const require = createRequire(import.meta.url);

function versionIn(manifest: string): string {
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}

interface Attempt {
  what: string;
  /** @throws Error that tells why there is nothing to load. */
  load: () => NativeBinding;
}

/** A binary built on this machine, by `npx moduleformer build` or in a clone. */
function loadLocalBuild(root: string): NativeBinding {
  if (!existsSync(join(root, 'build'))) throw new Error('there is none');
  return bindings({ bindings: 'moduleformer', module_root: root }) as NativeBinding;
}

/** A package with a prebuilt binary; that of another version of this package would have other functions. */
function loadPackage(name: string, version: string, unusable?: () => string | undefined): NativeBinding {
  let manifest: string;
  try {
    manifest = require.resolve(`${name}/package.json`);
  } catch {
    throw new Error('not installed');
  }
  const found = versionIn(manifest);
  if (found !== version) throw new Error(`version ${found} is installed, expected ${version}`);
  const reason = unusable?.();
  if (reason !== undefined) throw new Error(`installed, but ${reason}`);
  return require(name) as NativeBinding;
}

function attempts(): Attempt[] {
  const explicit = process.env['MODULEFORMER_ADDON'];
  if (explicit) {
    return [{ what: `MODULEFORMER_ADDON=${explicit}`, load: () => require(explicit) as NativeBinding }];
  }
  const root = packageRoot();
  const version = versionIn(join(root, 'package.json'));
  const cpu = `@moduleformer/${platformName()}`;
  const cuda = `${cpu}-cuda`;
  return [
    { what: `local build in ${join(root, 'build')}`, load: () => loadLocalBuild(root) },
    { what: cuda, load: () => loadPackage(cuda, version, whyNoGpu) },
    { what: cpu, load: () => loadPackage(cpu, version) },
  ];
}

export interface AddonSource {
  /** What was loaded. */
  what: string;
  /** What was tried before it, and why it was not taken. */
  passedOver: { what: string; reason: string }[];
}

function load(): { addon: NativeBinding; source: AddonSource } {
  const failures: AddonSource['passedOver'] = [];
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
      return { addon, source: { what, passedOver: failures } };
    } catch (error) {
      const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
      failures.push({ what, reason });
    }
  }
  const tried = failures.map(({ what, reason }) => `  - ${what}: ${reason}\n`).join('');
  throw new errors.ModuleFormerError(
    `the native addon of moduleformer could not be loaded (${platformName()}, Node ${process.version}). Tried:\n` +
      `${tried}Build it from source, with CMake and a C++20 compiler: npx moduleformer build ` +
      `(in a clone: npm run build:addon)`,
  );
}

const { addon, source } = load();

/** The addon, loaded once per environment (main thread or worker). */
export const native: NativeBinding = addon;

/** Where the addon came from. */
export const addonSource: AddonSource = source;

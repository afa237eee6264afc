import bindings from 'bindings';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as errors from '../errors.js';
import type { NativeBinding } from './binding.js';
import { packageRoot } from './package-root.js';
import { cpuPackage, cudaPackage, platformName } from './platform.js';

const require = createRequire(import.meta.url);
const NOT_INSTALLED = 'not installed';

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

/** @throws Error unless the package is installed, in the version of this one: others would have other functions. */
function requireInstalled(name: string): void {
  let manifest: string;
  try {
    manifest = require.resolve(`${name}/package.json`);
  } catch {
    throw new Error(NOT_INSTALLED);
  }
  const found = versionIn(manifest);
  const expected = versionIn(join(packageRoot(), 'package.json'));
  if (found !== expected) throw new Error(`version ${found} is installed, expected ${expected}`);
}

function loadPackage(name: string): NativeBinding {
  requireInstalled(name);
  return require(name) as NativeBinding;
}

/** As loadPackage, where a device answers. The binary is asked before it starts anything. */
function loadCudaPackage(name: string): NativeBinding {
  const addon = loadPackage(name);
  const { reason } = addon.cudaDevices();
  if (reason !== '') throw new Error(`installed, but ${reason}`);
  return addon;
}

function attempts(): Attempt[] {
  const explicit = process.env['MODULEFORMER_ADDON'];
  if (explicit) {
    return [{ what: `MODULEFORMER_ADDON=${explicit}`, load: () => require(explicit) as NativeBinding }];
  }
  const root = packageRoot();
  const [cpu, cuda] = [cpuPackage(), cudaPackage()];
  return [
    { what: `local build in ${join(root, 'build')}`, load: () => loadLocalBuild(root) },
    ...(cuda === undefined ? [] : [{ what: cuda, load: () => loadCudaPackage(cuda) }]),
    { what: cpu, load: () => loadPackage(cpu) },
  ];
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
}

/** Why the package with CUDA kernels is not what was loaded; undefined when it was, or when it is not installed. */
function whyNotCudaPackage({ what, passedOver }: AddonSource): string | undefined {
  const cuda = cudaPackage();
  if (cuda === undefined || what === cuda) return undefined;
  let reason = passedOver.find((attempt) => attempt.what === cuda)?.reason;
  if (reason === undefined) {
    try {
      requireInstalled(cuda);
      reason = `installed, but not tried: ${what} comes first`;
    } catch (error) {
      reason = reasonOf(error);
    }
  }
  return reason === NOT_INSTALLED ? undefined : `${cuda}: ${reason}`;
}

/** Where the addon came from. */
export interface AddonSource {
  /** What was loaded. */
  what: string;
  /** What was tried before it, and why it was not taken. */
  passedOver: { what: string; reason: string }[];
  /** Why a package with CUDA kernels that is installed was not taken; absent otherwise. */
  unusedCudaPackage?: string;
}

function start(addon: NativeBinding, source: AddonSource): AddonSource {
  const unused = whyNotCudaPackage(source);
  const cuda = cudaPackage();
  const missing = cuda === undefined || source.what === cuda ? '' : `${cuda} is not installed`;
  // The order is that of ErrorKind in native/core/error.h.
  addon.start(
    [
      errors.ShapeError,
      errors.DTypeError,
      errors.HandleError,
      errors.ValueError,
      errors.KernelError,
      errors.OutOfMemoryError,
    ],
    unused ?? missing,
  );
  return unused === undefined ? source : { ...source, unusedCudaPackage: unused };
}

function load(): { addon: NativeBinding; source: AddonSource } {
  const passedOver: AddonSource['passedOver'] = [];
  for (const { what, load } of attempts()) {
    try {
      const addon = load();
      return { addon, source: start(addon, { what, passedOver }) };
    } catch (error) {
      passedOver.push({ what, reason: reasonOf(error) });
    }
  }
  const tried = passedOver.map(({ what, reason }) => `  - ${what}: ${reason}\n`).join('');
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

import { closeSync, openSync, readSync } from 'node:fs';

/**
 * True on Linux systems whose C library is not glibc but musl (Alpine, above all): by the dynamic linker that this
 * Node asks for, at the head of its file. `process.report` would tell as well, after up to a second.
 */
export function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const head = Buffer.alloc(4096);
  const file = openSync(process.execPath, 'r');
  readSync(file, head);
  closeSync(file);
  return head.includes('/ld-musl-');
}

let name: string | undefined;

/** What this machine is called in the names of the packages with prebuilt binaries: `linux-x64`, `linux-x64-musl`. */
export function platformName(): string {
  name ??= `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
  return name;
}

/** The packages with CUDA kernels, which are installed by name: npm cannot choose by GPU. */
const CUDA_PLATFORMS = ['linux-x64'];

/** The package with the prebuilt binary for this machine's processor. */
export function cpuPackage(): string {
  return `@moduleformer/${platformName()}`;
}

/** The package that has CUDA kernels as well; undefined where there is none for this platform. */
export function cudaPackage(): string | undefined {
  return CUDA_PLATFORMS.includes(platformName()) ? `${cpuPackage()}-cuda` : undefined;
}

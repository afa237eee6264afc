import { existsSync } from 'node:fs';

interface Report {
  /** Without it the report resolves the names of open connections, which takes seconds on some networks. */
  excludeNetwork?: boolean;
  getReport: () => { header: { glibcVersionRuntime?: string } };
}

/** True on Linux systems whose C library is not glibc (Alpine's musl, above all). */
export function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const report = process.report as unknown as Report;
  const before = report.excludeNetwork ?? false;
  report.excludeNetwork = true;
  const { header } = report.getReport();
  report.excludeNetwork = before;
  return header.glibcVersionRuntime === undefined;
}

/** What this machine is called in the names of the packages with prebuilt binaries: `linux-x64`, `linux-x64-musl`. */
export function platformName(): string {
  return `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/** Why no GPU can answer here, or undefined where an NVIDIA driver is loaded. */
export function whyNoGpu(): string | undefined {
  // The second one is the driver inside WSL.
  const devices = ['/dev/nvidiactl', '/dev/dxg'];
  if (devices.some((file) => existsSync(file))) return undefined;
  return `no NVIDIA driver is loaded (there is no ${devices[0]})`;
}

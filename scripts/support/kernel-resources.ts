import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What ptxas says of one kernel for one architecture. Sizes in bytes; shared memory is the static part. */
export interface Kernel {
  name: string;
  architecture: string;
  registers: number;
  shared: number;
  stack: number;
  spillStores: number;
  spillLoads: number;
}

export interface Launch {
  threads: number;
  /** Dynamic shared memory in bytes. */
  shared: number;
}

/** The kernels in the output of `nvcc -Xptxas -v`; functions that are no kernels have no number of registers. */
export function parsePtxas(text: string): Kernel[] {
  const kernels: Kernel[] = [];
  for (const part of text.split(/^ptxas info\s*: Compiling entry function /m).slice(1)) {
    const [, name, architecture] = /^'([^']+)' for '([^']+)'/.exec(part) ?? [];
    const [, registers] = /Used (\d+) registers/.exec(part) ?? [];
    if (!name || !architecture || !registers) throw new Error(`ptxas says what is not known: ${part}`);
    const number = (pattern: RegExp): number => Number(pattern.exec(part)?.[1] ?? 0);
    kernels.push({
      name,
      architecture,
      registers: Number(registers),
      shared: number(/(\d+) bytes smem/),
      stack: number(/(\d+) bytes stack frame/),
      spillStores: number(/(\d+) bytes spill stores/),
      spillLoads: number(/(\d+) bytes spill loads/),
    });
  }
  return kernels;
}

/** The kernels of which ptxas says that it lets one wgmma wait for the other, and why. */
export function serializedProducts(text: string): { name: string; reason: string }[] {
  const said = /wgmma\.mma_async instructions are serialized due to (.*) in the function '([^']+)'/g;
  return [...text.matchAll(said)].map(([, reason, name]) => ({
    name: name as string,
    reason: reason as string,
  }));
}

/** Readable names, by c++filt; as they are where there is none. */
export function demangle(names: readonly string[]): string[] {
  const { status, stdout } = spawnSync('c++filt', { input: names.join('\n'), encoding: 'utf8' });
  return status === 0 ? stdout.trimEnd().split('\n') : [...names];
}

interface Limits {
  warps: number;
  blocks: number;
  /** Shared memory of an SM in bytes. */
  shared: number;
}

// "Technical Specifications per Compute Capability" of the CUDA programming guide.
const limitsOf = (architecture: string): Limits => {
  const capability = parseInt(architecture.replace('sm_', ''), 10);
  if (capability >= 120) return { warps: 48, blocks: 24, shared: 100 * 1024 };
  if (capability >= 90) return { warps: 64, blocks: 32, shared: 228 * 1024 };
  return { warps: 64, blocks: 32, shared: 164 * 1024 };
};
const REGISTERS = 65536;
const SUB_PARTITIONS = 4;
const RESERVED_SHARED = 1024;

const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;

/** The share of an SM's warps that are resident when blocks of this launch fill it, 0 when none fits. */
export function occupancy(kernel: Kernel, launch: Launch): number {
  const { warps, blocks, shared } = limitsOf(kernel.architecture);
  const warpsOfBlock = Math.ceil(launch.threads / 32);
  // Registers are given to a warp in units of 256, from the quarter of the SM that it runs on.
  const perWarp = roundUp(kernel.registers * 32, 256);
  const byRegisters = Math.floor(REGISTERS / SUB_PARTITIONS / perWarp) * SUB_PARTITIONS;
  const bytes = roundUp(kernel.shared + launch.shared + RESERVED_SHARED, 128);
  const resident = Math.min(
    blocks,
    Math.floor(warps / warpsOfBlock),
    Math.floor(byRegisters / warpsOfBlock),
    Math.floor(shared / bytes),
  );
  return (resident * warpsOfBlock) / warps;
}

/** Launches that the emulated tests recorded in `build`, by the kernel's name: those with the most shared memory. */
export function readLaunches(build: string): Map<string, Launch> {
  const record = join(build, 'launches.txt');
  const launches = new Map<string, Launch>();
  if (!existsSync(record)) return launches;
  const library = join(build, 'Release', 'moduleformer.node');
  const { stdout } = spawnSync('nm', ['--demangle', library], { encoding: 'utf8', maxBuffer: 2 ** 28 });
  const names = new Map<number, string>();
  for (const line of stdout.split('\n')) {
    const [, address, name] = /^([0-9a-f]+) \w (.*)$/.exec(line) ?? [];
    if (address && name) names.set(parseInt(address, 16), name);
  }
  for (const line of readFileSync(record, 'utf8').trim().split('\n')) {
    const [offset, threads, shared] = line.split(' ').map(Number) as [number, number, number];
    const name = names.get(offset);
    const known = name === undefined ? undefined : launches.get(name);
    if (name !== undefined && (!known || shared > known.shared)) launches.set(name, { threads, shared });
  }
  return launches;
}

import { ValueError } from './errors.js';
import type { CudaDevices, Device, InstructionSets, MemoryStats } from './native/binding.js';
import { addonSource, native, type AddonSource } from './native/load.js';

/** Waits until everything enqueued so far has run. */
export function synchronize(): Promise<void> {
  return native.synchronize();
}

/** Native memory of this environment, in bytes. */
export function memoryStats(): MemoryStats {
  return native.memoryStats();
}

/** Starts `memoryStats().peak` anew from what is live, to measure what comes next. */
export function resetPeakMemory(): void {
  native.resetPeakMemory();
}

/** Gives cached native memory back to the system, after waiting for enqueued work. */
export function trimMemory(): void {
  native.trimMemory();
}

/**
 * The most bytes that tensors of this environment may hold on each device, Infinity for no limit; beyond, operations
 * throw OutOfMemoryError.
 *
 * @throws ValueError unless bytes is above 0.
 */
export function setMemoryLimit(bytes: number): void {
  if (!(bytes > 0)) throw new ValueError(`setMemoryLimit: ${bytes} bytes, expected a positive number`);
  native.setMemoryLimit(bytes);
}

/** Threads that take part in one operation, the stream's own included; the same numbers come out for any. */
export function numThreads(): number {
  return native.numThreads();
}

/** @throws ValueError unless count is an integer from 1 to 1024. */
export function setNumThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > 1024) {
    throw new ValueError(`setNumThreads: ${count}, expected an integer from 1 to 1024`);
  }
  native.setNumThreads(count);
}

/** The instruction sets of this build and processor, and the one in use (MODULEFORMER_ISA overrides the choice). */
export function instructionSets(): InstructionSets {
  return native.instructionSets();
}

/** What computes, where it came from, and what does not and why. */
export interface BackendDescription {
  /** The device that was asked about. */
  device: Device;
  /** The native addon in use and what was passed over for it. */
  addon: AddonSource;
  /** The CPU kernels in use. */
  instructionSet: string;
  /** Threads of one operation on the CPU. */
  threads: number;
  /** The CUDA devices that answer or, with `reason`, why none does. */
  cuda: CudaDevices;
  /** All of it on one line, for logs. */
  summary: string;
}

/**
 * Tells what runs operations on a device, and why CUDA does not where it does not: after
 * `console.log(describeBackend(model.device).summary)` no fallback to the CPU goes unnoticed.
 *
 * For 'cuda' where no CUDA device answers, the summary says that and why; computing there is a ValueError.
 */
export function describeBackend(device: Device = 'cpu'): BackendDescription {
  const { chosen: instructionSet } = native.instructionSets();
  const description = {
    device,
    addon: addonSource,
    instructionSet,
    threads: native.numThreads(),
    cuda: native.cudaDevices(),
  };
  return { ...description, summary: summarise(description) };
}

function summarise(backend: Omit<BackendDescription, 'summary'>): string {
  const { device, addon, instructionSet, threads, cuda } = backend;
  const [gpu] = cuda.names;
  const unused = addon.unusedCudaPackage;
  if (device === 'cuda') {
    return gpu === undefined
      ? `cuda is not available: ${unused ?? cuda.reason} (${addon.what})`
      : `cuda (${gpu}), by ${addon.what}`;
  }
  const cpu = `cpu (${instructionSet}, ${threads} ${threads === 1 ? 'thread' : 'threads'}), by ${addon.what}`;
  return gpu === undefined
    ? `${cpu}; no cuda: ${unused ?? cuda.reason}`
    : `${cpu}; cuda (${gpu}) is available, and not asked for`;
}

import { ValueError } from './errors.js';
import type { InstructionSets, MemoryStats } from './native/binding.js';
import { native } from './native/load.js';

/** Waits until everything enqueued so far has run. */
export function synchronize(): Promise<void> {
  return native.synchronize();
}

/** Native memory of this environment, in bytes. */
export function memoryStats(): MemoryStats {
  return native.memoryStats();
}

/** Gives cached native memory back to the system, after waiting for enqueued work. */
export function trimMemory(): void {
  native.trimMemory();
}

/** The most bytes that tensors of this environment may hold; beyond, operations throw OutOfMemoryError. */
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

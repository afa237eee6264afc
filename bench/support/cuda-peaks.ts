import { native } from '../../lib/native/load.js';
import type { peakKinds } from '../../lib/native/binding.js';

/** Floating-point operations and bytes per second. */
interface Peaks {
  bf16: number;
  tf32: number;
  memory: number;
}

// NVIDIA's data sheets: dense tensor cores with f32 sums, without sparsity.
const known: readonly [name: RegExp, peaks: Peaks][] = [
  [/\bA100.*80GB\b/, { bf16: 312e12, tf32: 156e12, memory: 2039e9 }],
  [/\bA100\b/, { bf16: 312e12, tf32: 156e12, memory: 1555e9 }],
  [/\bH200\b/, { bf16: 989.4e12, tf32: 494.7e12, memory: 4800e9 }],
  [/\bH100.*PCIe\b/, { bf16: 756e12, tf32: 378e12, memory: 2000e9 }],
  [/\bH100\b/, { bf16: 989.4e12, tf32: 494.7e12, memory: 3350e9 }],
  [/\bB200\b/, { bf16: 2250e12, tf32: 1125e12, memory: 8000e9 }],
  [/\bL40S\b/, { bf16: 362e12, tf32: 183e12, memory: 864e9 }],
  [/\bRTX 4090\b/, { bf16: 165.2e12, tf32: 82.6e12, memory: 1008e9 }],
  [/\bRTX 5090\b/, { bf16: 209.5e12, tf32: 104.8e12, memory: 1792e9 }],
  // No speed at all: what runs there is checked, not measured.
  [/^emulated$/, { bf16: 1e9, tf32: 1e9, memory: 1e9 }],
];

/** The GPU's name; exits with 3 where there is none. */
export function gpuName(): string {
  const { names, reason } = native.cudaDevices();
  const [name] = names;
  if (name !== undefined) return name;
  console.error(`bench: nothing was measured: device 'cuda' is not available: ${reason}`);
  process.exit(3);
}

/** Whether the device is the emulator, where only tiny shapes end. */
export const isEmulated = (): boolean => gpuName() === 'emulated';

/** What the data sheet of this GPU promises. f32 products are three of TF32. */
export function cudaPeak(kind: (typeof peakKinds)[number]): number {
  const name = gpuName();
  const peaks = known.find(([pattern]) => pattern.test(name))?.[1];
  if (!peaks)
    throw new Error(`bench: the peaks of '${name}' are not known, add them to bench/support/cuda-peaks.ts`);
  if (kind === 'bf16') return peaks.bf16;
  return kind === 'f32' ? peaks.tf32 / 3 : peaks.memory;
}

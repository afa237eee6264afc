import { join } from 'node:path';
import { SafetensorsFile } from '../../lib/io/safetensors.js';
import type { NdArray } from './compare.js';

export const languageModelCases = ['mlp-gate', 'linear-gate-switch', 'gmm-gate-k4', 'left-padding'] as const;

export function goldenDir(name: string): string {
  return join(import.meta.dirname, '..', 'golden', name);
}

/** The numbers of one golden case, by name. */
export class Golden {
  readonly #arrays: ReadonlyMap<string, NdArray>;

  private constructor(arrays: ReadonlyMap<string, NdArray>) {
    this.#arrays = arrays;
  }

  static async open(name: string): Promise<Golden> {
    await using file = await SafetensorsFile.open(join(goldenDir(name), 'expected.safetensors'));
    const arrays = new Map<string, NdArray>();
    for (const [key, { dtype, shape }] of file.entries) {
      arrays.set(key, { shape, data: decode(dtype, (await file.read(key)).buffer) });
    }
    return new Golden(arrays);
  }

  get names(): string[] {
    return [...this.#arrays.keys()];
  }

  get(name: string): NdArray {
    const array = this.#arrays.get(name);
    if (!array) throw new Error(`the golden case has no ${name}`);
    return array;
  }

  /** A matrix of integers, undefined where the case has none. */
  rows(name: string): number[][] | undefined {
    const array = this.#arrays.get(name);
    if (!array) return undefined;
    const [B, T] = array.shape as [number, number];
    const flat = Array.from(array.data);
    return Array.from({ length: B }, (_, b) => flat.slice(b * T, (b + 1) * T));
  }
}

function decode(dtype: string, buffer: ArrayBuffer): ArrayLike<number> {
  switch (dtype) {
    case 'F64':
      return new Float64Array(buffer);
    case 'F32':
      return new Float32Array(buffer);
    case 'I64':
      return Array.from(new BigInt64Array(buffer), Number);
    default:
      throw new Error(`unexpected dtype ${dtype}`);
  }
}

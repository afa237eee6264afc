import { cacheAppend } from '../autograd/index.js';
import { ShapeError } from '../errors.js';
import { keep } from '../scope.js';
import { empty, type Tensor } from '../tensor.js';

interface Entry {
  k: Tensor;
  /** The same tensor as k where keys and values are the identity. */
  v: Tensor;
}

/**
 * Keys and values of the positions seen so far, one entry per block, each [B, capacity, H, C]. Where K and V are the
 * identity, one tensor serves as both.
 */
export class KeyValueCache {
  /** The most positions it holds. */
  readonly capacity: number;
  readonly #entries: (Entry | undefined)[] = [];
  #length = 0;

  /** Empty; memory for `capacity` positions is taken at the first use. */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Positions held. */
  get length(): number {
    return this.#length;
  }

  /**
   * Appends the keys and values [B, T, H, C] of block `layer` and returns all of them, [B, capacity, H, C] of which the
   * first `length + T` positions count.
   * @throws ShapeError when they do not fit.
   */
  append(layer: number, k: Tensor, v: Tensor): Entry {
    const [batch, length, heads, width] = k.shape as [number, number, number, number];
    if (this.#length + length > this.capacity) {
      throw new ShapeError(
        `cache: ${length} positions do not fit after ${this.#length}, the capacity is ${this.capacity}`,
      );
    }
    let entry = this.#entries[layer];
    if (!entry) {
      const make = (): Tensor => {
        const memory = empty([batch, this.capacity, heads, width], k.dtype, k.device);
        keep(memory);
        return memory;
      };
      const keys = make();
      entry = { k: keys, v: k === v ? keys : make() };
      this.#entries[layer] = entry;
    }
    cacheAppend(k, entry.k, this.#length);
    if (entry.v !== entry.k) cacheAppend(v, entry.v, this.#length);
    return entry;
  }

  /** Counts `length` more positions as held: after every block has appended them. */
  advance(length: number): void {
    this.#length += length;
  }

  /** Frees the tensors of every block. */
  dispose(): void {
    for (const entry of this.#entries) {
      entry?.k.dispose();
      entry?.v.dispose();
    }
    this.#entries.length = 0;
  }
}

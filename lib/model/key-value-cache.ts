import { cacheAppend } from '../autograd/index.js';
import { ShapeError } from '../errors.js';
import { keep } from '../scope.js';
import { empty, type Tensor } from '../tensor.js';

interface Entry {
  k: Tensor;
  /** The same tensor as k where keys and values are the identity. */
  v: Tensor;
}

/** Tensors that tell a recorded pass of one position per row what it continues. */
export interface CacheCursor {
  /** [1] i32: positions held. */
  readonly position: Tensor;
  /** [B, 1] i32: each row's position, padding not counted. */
  readonly positions: Tensor;
  /** [B, capacity] i32: 0 leaves a key out; null without padding. */
  readonly keyMask: Tensor | null;
}

/**
 * Keys and values of the positions seen so far, one entry per block, each [B, capacity, H, C]. Where K and V are the
 * identity, one tensor serves as both.
 */
export class KeyValueCache {
  /** The most positions it holds. */
  readonly capacity: number;
  /** @internal Where the next position is, for passes that are recorded; `length` says it otherwise. */
  cursor: CacheCursor | null = null;
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
    if (!this.cursor && this.#length + length > this.capacity) {
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
    const [start, position] = this.cursor ? [0, this.cursor.position] : [this.#length, null];
    cacheAppend(k, entry.k, start, position);
    if (entry.v !== entry.k) cacheAppend(v, entry.v, start, position);
    return entry;
  }

  /** What attention over all positions, `length` new ones included, needs to know of their number. */
  extent(length: number): { keyLength: number; position: Tensor | null } {
    return this.cursor
      ? { keyLength: this.capacity, position: this.cursor.position }
      : { keyLength: this.#length + length, position: null };
  }

  /** Counts `length` more positions as held: after every block has appended them. */
  advance(length: number): void {
    if (!this.cursor) this.#length += length;
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

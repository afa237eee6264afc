import { native } from '../native/load.js';
import type { Tensor } from '../tensor.js';

/**
 * Copies x [B, T, ...] into the rows start .. start + T of cache [B, capacity, ...], in place. `position` [1] i32 is
 * added to `start` when the kernel runs. No gradient flows.
 * @throws ShapeError, DTypeError when they don't fit; ValueError when the cache has no room.
 */
export function cacheAppend(x: Tensor, cache: Tensor, start: number, position: Tensor | null = null): void {
  native.cacheAppend(x.id, cache.id, start, position?.id ?? null);
  cache.version.count++;
}

import { native } from '../native/load.js';
import type { Tensor } from '../tensor.js';

/**
 * Copies x [B, T, ...] into the rows start .. start + T of cache [B, capacity, ...], in place. No gradient flows.
 * @throws ShapeError, DTypeError when they don't fit; ValueError when the cache has no room.
 */
export function cacheAppend(x: Tensor, cache: Tensor, start: number): void {
  native.cacheAppend(x.id, cache.id, start);
  cache.version.count++;
}

import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';

/** labels [B, T] i32 or i64 -> [B, T] i32: at each position the label of the next one, at the last -100. */
export function shiftLabels(labels: Tensor): Tensor {
  return wrap(native.shiftLabels(labels.id));
}

/**
 * The last token of each row that is not padding, as rows of a flattened [B*T, ...]: ids [B, T] -> [B] i32 with
 * b * T + count(ids[b] != pad) - 1; the last position where `pad` is null or nothing else is there.
 */
export function lastTokenRows(ids: Tensor, pad: number | null): Tensor {
  return wrap(native.lastTokenRows(ids.id, pad ?? -1));
}

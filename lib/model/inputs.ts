import { DTypeError, ShapeError, ValueError } from '../errors.js';
import type { Device } from '../native/binding.js';
import { tensor, Tensor } from '../tensor.js';

/** Token ids, masks or labels: rows of equal length, or a tensor [B, T] of dtype i32 or i64. */
export type TokenMatrix = readonly (readonly number[])[] | Tensor;

function checkRectangular(name: string, rows: readonly (readonly number[])[]): [number, number] {
  const [first] = rows;
  if (!first || first.length === 0) {
    throw new ShapeError(`${name}: expected at least one row of at least one token, got an empty batch`);
  }
  rows.forEach((row, b) => {
    if (row.length !== first.length) {
      throw new ShapeError(
        `${name}: row ${b} has ${row.length} entries, row 0 has ${first.length}; pad them to one length`,
      );
    }
  });
  return [rows.length, first.length];
}

function checkTensor(name: string, x: Tensor): [number, number] {
  if (x.dtype !== 'i32' && x.dtype !== 'i64') {
    throw new DTypeError(`${name}: dtype ${x.dtype}, expected i32 or i64`);
  }
  const [B, T, ...rest] = x.shape;
  if (B === undefined || T === undefined || rest.length > 0 || B === 0 || T === 0) {
    throw new ShapeError(`${name}: shape [${x.shape.join(', ')}], expected [B, T] with B and T at least 1`);
  }
  return [B, T];
}

/** Ids [B, T] as a tensor. Ids given as numbers are checked against the vocabulary at once, others by the kernel. */
export function idsToTensor(
  name: string,
  ids: TokenMatrix,
  vocabSize: number,
  device: Device,
): { ids: Tensor; batchSize: number; length: number } {
  if (ids instanceof Tensor) {
    const [batchSize, length] = checkTensor(name, ids);
    return { ids, batchSize, length };
  }
  const [batchSize, length] = checkRectangular(name, ids);
  ids.forEach((row, b) => {
    row.forEach((id, t) => {
      if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
        throw new ValueError(
          `${name}: id ${id} at row ${b}, position ${t} is outside the vocabulary of ${vocabSize}`,
        );
      }
    });
  });
  return { ids: fromRows(ids, batchSize, length, device), batchSize, length };
}

/** A matrix of integers [B, T] that must have the given shape. */
export function matrixToTensor(
  name: string,
  values: TokenMatrix,
  shape: readonly [number, number],
  device: Device,
): Tensor {
  const given = values instanceof Tensor ? checkTensor(name, values) : checkRectangular(name, values);
  if (given[0] !== shape[0] || given[1] !== shape[1]) {
    throw new ShapeError(`${name}: shape [${given.join(', ')}], expected [${shape.join(', ')}]`);
  }
  if (values instanceof Tensor) return values;
  values.forEach((row, b) => {
    const t = row.findIndex((value) => !Number.isInteger(value));
    if (t >= 0) throw new ValueError(`${name}: ${row[t]} at row ${b}, position ${t} is no integer`);
  });
  return fromRows(values, shape[0], shape[1], device);
}

function fromRows(rows: readonly (readonly number[])[], B: number, T: number, device: Device): Tensor {
  const flat = new Int32Array(B * T);
  rows.forEach((row, b) => flat.set(row, b * T));
  return tensor(flat, { dtype: 'i32', shape: [B, T], device });
}

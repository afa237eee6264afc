import type { NdArray } from '../support/compare.js';

/** The sum over dimension `dim`. */
export function sum({ data, shape }: NdArray, dim: number): NdArray {
  const inner = shape[dim] as number;
  const tail = shape.slice(dim + 1).reduce((a, b) => a * b, 1);
  const rest = [...shape.slice(0, dim), ...shape.slice(dim + 1)];
  const out = new Float64Array(rest.reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i++) {
    const at = Math.floor(i / (inner * tail)) * tail + (i % tail);
    out[at] = (out[at] as number) + (data[i] as number);
  }
  return { data: out, shape: rest };
}

export function flatten({ data, shape }: NdArray, rows: boolean): NdArray {
  const D = rows ? (shape.at(-1) as number) : 1;
  return { data, shape: rows ? [D === 0 ? 0 : data.length / D, D] : [data.length] };
}

export function mulRows({ data, shape }: NdArray, s: NdArray): NdArray {
  const D = shape.at(-1) as number;
  return { data: Array.from(data, (x, i) => x * (s.data[Math.floor(i / D)] as number)), shape };
}

export function rowDot(a: NdArray, b: NdArray): NdArray {
  const product = Array.from(a.data, (x, i) => x * (b.data[i] as number));
  return sum({ data: product, shape: a.shape }, a.shape.length - 1);
}

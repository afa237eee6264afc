import { ShapeError, ValueError } from '../errors.js';
import type { TokenMatrix } from '../model/inputs.js';
import { Tensor } from '../tensor.js';

/** Prompts of one length as numbers; the mask is null where nothing is padding. */
export interface Prompt {
  ids: number[][];
  mask: number[][] | null;
}

/**
 * Prompts as numbers, with padding, if any, on the left.
 * @throws ShapeError for an empty batch or prompt, and a mask of another shape; ValueError for padding elsewhere.
 */
export async function readPrompt(inputIds: TokenMatrix, attentionMask?: TokenMatrix): Promise<Prompt> {
  const ids = await toRows('inputIds', inputIds);
  const length = (ids[0] as number[]).length;
  if (!attentionMask) return { ids, mask: null };
  const mask = await toRows('attentionMask', attentionMask);
  if (mask.length !== ids.length || mask[0]?.length !== length) {
    throw new ShapeError(
      `generate: attentionMask has shape [${mask.length}, ${mask[0]?.length}], expected [${ids.length}, ${length}] as inputIds`,
    );
  }
  mask.forEach(checkMask);
  return { ids, mask: mask.every((row) => row[0] === 1) ? null : mask };
}

/**
 * Prompts of any lengths brought to one, with padding on the left, as `generate` takes them.
 * @throws ShapeError when there is no prompt or one is empty.
 */
export function padLeft(
  prompts: readonly (readonly number[])[],
  padId = 0,
): { inputIds: number[][]; attentionMask: number[][] } {
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  if (prompts.length === 0 || prompts.some((prompt) => prompt.length === 0)) {
    throw new ShapeError('padLeft: expected at least one prompt, each of at least one token');
  }
  const fill = (prompt: readonly number[], value: number): number[] =>
    Array<number>(longest - prompt.length).fill(value);
  return {
    inputIds: prompts.map((prompt) => [...fill(prompt, padId), ...prompt]),
    attentionMask: prompts.map((prompt) => [...fill(prompt, 0), ...prompt.map(() => 1)]),
  };
}

async function toRows(name: string, values: TokenMatrix): Promise<number[][]> {
  const rows = values instanceof Tensor ? await tensorRows(name, values) : values.map((row) => [...row]);
  const width = rows[0]?.length ?? 0;
  if (width === 0) throw new ShapeError(`generate: ${name} is empty, expected rows of at least one token`);
  const ragged = rows.findIndex((row) => row.length !== width);
  if (ragged >= 0) {
    throw new ShapeError(
      `generate: row ${ragged} of ${name} has ${rows[ragged]?.length} entries, row 0 has ${width}; pad them on the left`,
    );
  }
  return rows;
}

async function tensorRows(name: string, x: Tensor): Promise<number[][]> {
  const [B, T] = x.shape;
  if (x.shape.length !== 2 || B === undefined || T === undefined) {
    throw new ShapeError(`generate: ${name} has shape [${x.shape.join(', ')}], expected [B, T]`);
  }
  const flat = Array.from(await x.data(), Number);
  return Array.from({ length: B }, (_, b) => flat.slice(b * T, (b + 1) * T));
}

function checkMask(row: readonly number[], b: number): void {
  const wrong = row.find((value) => value !== 0 && value !== 1);
  if (wrong !== undefined)
    throw new ValueError(`generate: attentionMask has ${wrong} in row ${b}, expected 0 or 1`);
  const first = row.indexOf(1);
  if (first < 0) throw new ValueError(`generate: row ${b} of attentionMask leaves no token of the prompt`);
  if (row.includes(0, first)) {
    throw new ValueError(`generate: row ${b} of attentionMask has padding after a token; pad on the left`);
  }
}

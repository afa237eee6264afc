// Tokens of the shared vocabulary that old text hardly has: nobody has trained their rows of the embedding and the head.
import { copyInto, mulRows, noGrad } from '../../lib/autograd/index.js';
import type { Batch } from '../../lib/data/loader.js';
import { AdamW, type AdamWGroupOptions, type AdamWOptions } from '../../lib/optimizer/adamw.js';
import { scope } from '../../lib/scope.js';
import { tensor, type Tensor } from '../../lib/tensor.js';
import { batchesOf, type Part, type Workbench } from './workbench.js';

/** Tokens of each kind of text that are counted. */
const COUNTED = 1_000_000;
/**
 * [V]: 1 for the tokens of which at least the part `from` of the occurrences, in equal amounts of the training parts of
 * both, is in new text, else 0.
 */
export async function newTokens(bench: Workbench, from: number): Promise<number[]> {
  const scale = { ...bench.scale, heldOut: COUNTED };
  const counts = async (parts: readonly Part[]): Promise<Float64Array> =>
    frequencies(await batchesOf(await bench.texts(parts), 'train', scale), bench.tokenizer.vocabSize);
  const { domains, newDomain } = bench.scale;
  const [inNew, inOld] = [await counts(bench.whole(newDomain)), await counts(bench.whole(...domains))];
  return [...inNew].map((n, id) => Number(n > 0 && n >= from * (n + (inOld[id] as number))));
}

function frequencies(batches: readonly Batch[], vocabSize: number): Float64Array {
  const counts = new Float64Array(vocabSize);
  let total = 0;
  for (const { inputIds } of batches) {
    for (const id of inputIds) counts[id] = (counts[id] as number) + 1;
    total += inputIds.length;
  }
  return counts.map((count) => count / total);
}

/** AdamW that changes some rows of some parameters only: the gradients of all other rows are taken as 0. */
export class RowsAdamW extends AdamW {
  readonly #tables: readonly Tensor[];
  readonly #mask: Tensor;

  /** @param tables [V, D] each, to be in groups without weight decay. */
  constructor(
    groups: readonly AdamWGroupOptions[],
    options: AdamWOptions,
    tables: readonly Tensor[],
    rows: number[],
  ) {
    super(groups, options);
    this.#tables = tables;
    this.#mask = tensor(rows, { dtype: 'f32' });
  }

  override step(finite?: Tensor): void {
    scope(() => {
      noGrad(() => {
        for (const { grad } of this.#tables) if (grad) copyInto(grad, mulRows(grad, this.#mask));
      });
    });
    super.step(finite);
  }
}

import { noGrad, square, sub, sum } from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import { DataError } from '../errors.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { scope } from '../scope.js';
import type { Tensor } from '../tensor.js';
import { batchInputs } from '../training/batch.js';
import { evaluate } from '../training/evaluate.js';

/** How much a change of a model changed what it says. */
export interface OutputChange {
  /** exp of the mean cross-entropy over all predicted tokens, of both models. */
  perplexity: { before: number; after: number };
  /** ||logits after - logits before|| / ||logits before||, over all positions. */
  logits: number;
  /** Predicted tokens. */
  tokens: number;
}

/**
 * How much the outputs of a language model changed by surgery: both models read the same batches, without gradients.
 * @throws DataError when the batches predict no token.
 */
export async function compareOutputs(
  before: CausalLM<CausalLMConfig>,
  after: CausalLM<CausalLMConfig>,
  batches: readonly Batch[],
): Promise<OutputChange> {
  if (batches.length === 0) throw new DataError('compareOutputs: no batch was given');
  const first = await evaluate(before, batches);
  const second = await evaluate(after, batches);
  let [difference, norm] = [0, 0];
  const modes = [before, after].map((model) => [model, model.training] as const);
  try {
    for (const [model] of modes) model.eval();
    for (const batch of batches) {
      const [d, n] = noGrad(() =>
        scope(() => {
          const [a, b] = [before, after].map((model) => {
            const { inputIds, documentStarts } = batchInputs(batch, model.device);
            return model.forward({ inputIds, documentStarts: documentStarts as Tensor }).logits as Tensor;
          }) as [Tensor, Tensor];
          return [sum(square(sub(b, a))), sum(square(a))] as const;
        }),
      );
      difference += await d.item();
      norm += await n.item();
      d.dispose();
      n.dispose();
    }
  } finally {
    for (const [model, mode] of modes) model.train(mode);
  }
  return {
    perplexity: { before: first.perplexity, after: second.perplexity },
    logits: Math.sqrt(difference / norm),
    tokens: first.tokens,
  };
}

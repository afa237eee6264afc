import { noGrad } from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import { DataError } from '../errors.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { scope } from '../scope.js';
import type { Tensor } from '../tensor.js';
import { batchInputs, countPredicted } from './batch.js';

/** What a model scores on a data set. */
export interface Evaluation {
  /** Mean cross-entropy over all predicted tokens, in nats. */
  loss: number;
  /** exp(loss) */
  perplexity: number;
  /** The predicted tokens. */
  tokens: number;
}

/**
 * The cross-entropy of a model over all batches, each predicted token counting the same. Runs in evaluation mode and
 * restores the mode after; at most two batches are in flight, and Node's event loop stays free.
 *
 * @throws DataError when the batches predict no token.
 * @throws signal.reason when `signal` aborts.
 * @throws KernelError when computing fails, for an id outside the model's vocabulary for instance.
 */
export async function evaluate(
  model: CausalLM<CausalLMConfig>,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<Evaluation> {
  const wasTraining = model.training;
  let sum = 0;
  let tokens = 0;
  let pending: Promise<void> = Promise.resolve();
  model.eval();
  try {
    for await (const batch of batches) {
      signal?.throwIfAborted();
      const count = countPredicted(batch);
      if (count === 0) continue;
      const reading = enqueue(model, batch).then((crossEntropy) => {
        sum += crossEntropy * count;
        tokens += count;
      });
      reading.catch(() => undefined); // thrown when its turn comes
      await pending;
      pending = reading;
    }
    await pending;
  } finally {
    model.train(wasTraining);
  }
  if (tokens === 0) throw new DataError('evaluate: the batches predict no token');
  return { loss: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
}

async function enqueue(model: CausalLM<CausalLMConfig>, batch: Batch): Promise<number> {
  const crossEntropy = noGrad(() =>
    scope(
      () =>
        model.forward({ ...batchInputs(batch, model.device), outputLogits: false }).crossEntropy as Tensor,
    ),
  );
  try {
    return await crossEntropy.item();
  } finally {
    crossEntropy.dispose();
  }
}

// Speeds of several models, measured in turn, so that a machine whose speed changes does no model wrong.
import { noGrad } from '../../lib/autograd/index.js';
import type { Batch } from '../../lib/data/loader.js';
import { AdamW } from '../../lib/optimizer/adamw.js';
import { clipGradNorm } from '../../lib/optimizer/clip.js';
import { scope } from '../../lib/scope.js';
import type { Tensor } from '../../lib/tensor.js';
import { batchInputs } from '../../lib/training/batch.js';
import { median } from '../support/measure.js';
import type { Model } from './recipes.js';

/** Tokens per second, medians. */
export interface Rates {
  /** A step: forward, backward, clipping, AdamW. */
  training: number;
  /** Forward with the logits of the last positions. */
  reading: number;
  /** Generation for all rows of a batch, after a short prompt. */
  generating: number;
}

const PROMPT = 16;
const GENERATED = 16;

type Task = () => Promise<number>;

/**
 * The speeds of models on the same batch of text; the models are trained on by that. Each round runs every model once.
 */
export async function measureRates(
  models: ReadonlyMap<string, Model>,
  batch: Batch,
  rounds: number,
): Promise<Record<string, Rates>> {
  const tasks = [...models].map(([name, model]) => {
    const own: Record<keyof Rates, Task> = {
      training: trainer(model, batch),
      reading: () => read(model, batch),
      generating: () => generate(model, batch),
    };
    const rates: Record<keyof Rates, number[]> = { training: [], reading: [], generating: [] };
    return { name, own, rates };
  });
  for (let round = 0; round <= rounds; round++) {
    for (const { own, rates } of tasks) {
      for (const kind of ['training', 'reading', 'generating'] as const) {
        const start = performance.now();
        const tokens = await own[kind]();
        const rate = (1000 * tokens) / (performance.now() - start);
        if (round > 0) rates[kind].push(rate); // the first round warms up
      }
    }
  }
  return Object.fromEntries(
    tasks.map(({ name, rates }) => [
      name,
      {
        training: median(rates.training),
        reading: median(rates.reading),
        generating: median(rates.generating),
      },
    ]),
  );
}

function trainer(model: Model, batch: Batch): Task {
  const optimizer = new AdamW(model.parameters(), { lr: 1e-6 });
  return async () => {
    model.train();
    const loss = scope(() => {
      const output = model.forward({ ...batchInputs(batch, model.device), outputLogits: false });
      output.loss?.backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      return output.loss as Tensor;
    });
    await loss.item();
    loss.dispose();
    model.eval();
    return batch.inputIds.length;
  };
}

async function read(model: Model, batch: Batch): Promise<number> {
  const logits = scope(() =>
    noGrad(() => {
      const { inputIds, documentStarts } = batchInputs(batch, model.device);
      return model.forward({ inputIds, documentStarts: documentStarts as Tensor, lastLogitsOnly: true })
        .logits as Tensor;
    }),
  );
  await logits.data();
  logits.dispose();
  return batch.inputIds.length;
}

async function generate(model: Model, { batchSize, sequenceLength, inputIds }: Batch): Promise<number> {
  const prompts = Array.from({ length: batchSize }, (_, row) => [
    ...inputIds.subarray(row * sequenceLength, row * sequenceLength + PROMPT),
  ]);
  await model.generate({ inputIds: prompts, maxNewTokens: GENERATED, temperature: 0, stopTokens: [] });
  return batchSize * GENERATED;
}

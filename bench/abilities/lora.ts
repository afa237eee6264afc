// The baseline of low-rank adapters (LoRA, arXiv 2106.09685): W + s B A with W frozen, for all linear maps of a model's
// blocks. The weights are rewritten after each step, and the gradient with regard to B and A follows from the weight's.
import {
  add,
  copyInto,
  linear,
  mul,
  noGrad,
  randomUniform,
  scale,
  sum,
  zeros,
} from '../../lib/autograd/index.js';
import type { DataLoader } from '../../lib/data/loader.js';
import type { AdamW } from '../../lib/optimizer/adamw.js';
import { clipGradNorm } from '../../lib/optimizer/clip.js';
import type { Schedule } from '../../lib/optimizer/schedule.js';
import { scope } from '../../lib/scope.js';
import type { Tensor } from '../../lib/tensor.js';
import { batchInputs } from '../../lib/training/batch.js';
import type { Model } from './recipes.js';

const SCALE = 2;
const ADAPTED = /^transformer\.h\..*\.weight$/;

interface Adapter {
  /** [out, in] */
  weight: Tensor;
  /** As it was. */
  frozen: Tensor;
  /** B [out, r], at first 0. */
  up: Tensor;
  /** The transpose of A: [in, r]. */
  down: Tensor;
}

function adaptedWeights(model: Model): Tensor[] {
  return [...model.namedParameters()]
    .filter(([name, { shape }]) => ADAPTED.test(name) && shape.length === 2)
    .map(([, weight]) => weight);
}

/** The rank at which adapters have about so many parameters. */
export function rankOfSize(model: Model, size: number): number {
  const perRank = adaptedWeights(model).reduce((n, { shape }) => n + (shape[0] ?? 0) + (shape[1] ?? 0), 0);
  return Math.max(1, Math.round(size / perRank));
}

export class LoraAdapters {
  readonly #model: Model;
  readonly #adapters: Adapter[];

  constructor(model: Model, { rank, seed }: { rank: number; seed: number }) {
    this.#model = model;
    model.trainable(ADAPTED);
    this.#adapters = adaptedWeights(model).map((weight, i) => {
      const [outputs, inputs] = weight.shape as [number, number];
      const bound = 1 / Math.sqrt(inputs);
      const down = randomUniform([inputs, rank], [seed, i], { low: -bound, high: bound });
      const adapter = { weight, frozen: noGrad(() => scale(weight, 1)), up: zeros([outputs, rank]), down };
      adapter.up.requiresGrad = true;
      adapter.down.requiresGrad = true;
      return adapter;
    });
  }

  *parameters(): Iterable<Tensor> {
    for (const { up, down } of this.#adapters) yield* [up, down];
  }

  /** Trains the adapters; the model's weights are the sum afterwards. */
  async train(
    loader: DataLoader,
    { steps, schedule, optimizer }: { steps: number; schedule: Schedule; optimizer: AdamW },
  ): Promise<void> {
    const model = this.#model.train();
    let step = 0;
    for await (const batch of loader) {
      optimizer.lr = schedule(step);
      const loss = scope(() => {
        const output = model.forward({ ...batchInputs(batch, model.device), outputLogits: false });
        output.loss?.backward();
        for (const adapter of this.#adapters) chain(adapter);
        clipGradNorm(this.parameters(), 1);
        optimizer.step();
        optimizer.zeroGrad();
        model.zeroGrad();
        for (const adapter of this.#adapters) merge(adapter);
        return output.loss as Tensor;
      });
      await loss.item(); // so that the queue stays short
      loss.dispose();
      if (++step === steps) break;
    }
    model.eval();
  }

  /** Frees the adapters; the weights stay merged. */
  dispose(): void {
    for (const { frozen, up, down } of this.#adapters) for (const each of [frozen, up, down]) each.dispose();
  }
}

/** B A^T' times s: [out, in]. */
function product({ up, down }: Adapter): Tensor {
  return scale(linear(up, down), SCALE);
}

/** The gradient of the loss with regard to B and A, from that with regard to the weight. */
function chain(adapter: Adapter): void {
  const { grad } = adapter.weight;
  if (!grad) throw new Error('the adapted weight has no gradient');
  sum(mul(product(adapter), grad)).backward();
}

function merge(adapter: Adapter): void {
  noGrad(() => copyInto(adapter.weight, add(adapter.frozen, product(adapter))));
}

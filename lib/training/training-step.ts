import { add, affine, cast, clipGradients, gradNorm, noGrad, reshape, sub } from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import type { CausalLM, CausalLMConfig, CausalLMOutput } from '../model/causal-lm.js';
import type { BlockStatistics } from '../model/forward-context.js';
import type { AdamW } from '../optimizer/adamw.js';
import { scope } from '../scope.js';
import type { Tensor } from '../tensor.js';
import { batchInputs, countPredicted } from './batch.js';
import type { BlockEntropy, BlockLoad, RouterEntropy } from './metrics.js';

/** What a step, or one of its micro-batches, measured. */
interface Measured {
  /** Cross-entropy plus weighted router losses. */
  loss: number;
  crossEntropy: number;
  /** Balancing, unweighted; 0 in dense models. */
  auxLoss: number;
  /** Concentration, unweighted; 0 in dense models. */
  concentrationLoss: number;
  /** Rows that each expert got, by block; empty in dense models. */
  load: BlockLoad[];
  /** Of the routers, by block; empty in dense models. */
  entropy: BlockEntropy[];
}

export interface StepResult extends Measured {
  /** Of the gradients before clipping. */
  gradNorm: number;
}

export interface StepOptions {
  model: CausalLM<CausalLMConfig>;
  optimizer: AdamW;
  /** The most that the gradients' norm may be; Infinity leaves them as they are. */
  clipNorm: number;
  /** Over what the routers' load is balanced or concentrated. */
  balanceOver: 'microBatch' | 'step';
  /** A scalar that is added to the loss of the step. */
  regularizer?: (() => Tensor) | undefined;
}

/** What the next step looks at on the device: [1] each. */
export interface StepHealth {
  norm: Tensor;
  loss: Tensor;
}

export interface EnqueuedStep {
  /** Settles when the device has come to the end of the step; never unhandled. */
  result: Promise<StepResult>;
  health: StepHealth;
}

/**
 * Enqueues an optimizer step over micro-batches, in which every predicted token counts the same; the routers' losses
 * are averaged over the micro-batches. All but the last two are waited for, so that the queue stays short.
 *
 * The device applies the step only when its loss and gradients are finite and those of the step before, `previous`,
 * were: so a step that is already enqueued when the host learns of a divergence changes nothing.
 */
export async function enqueueStep(
  batches: readonly Batch[],
  lr: number,
  options: StepOptions,
  previous: StepHealth | undefined,
): Promise<EnqueuedStep> {
  const counts = batches.map(countPredicted);
  const total = Math.max(
    1,
    counts.reduce((sum, count) => sum + count, 0),
  );
  const parts: Promise<Measured>[] = [];
  let loss: Tensor | undefined;
  options.optimizer.zeroGrad();
  const population =
    options.balanceOver === 'step' && batches.length > 1
      ? await gatherStatistics(options.model, batches)
      : [];
  for (const [i, batch] of batches.entries()) {
    const weights =
      batches.length === 1 ? null : { tokens: (counts[i] as number) / total, batch: 1 / batches.length };
    const part = enqueuePart(options, batch, weights, population);
    parts.push(part.measured);
    loss = loss ? sumOf(loss, part.loss) : part.loss;
    if (i > 0) await parts[i - 1];
  }
  for (const { attention, mlp } of population) for (const each of [attention, mlp]) each.dispose();
  const health = { norm: enqueueUpdate(loss as Tensor, lr, options, previous), loss: loss as Tensor };
  const result = collect(parts, health);
  result.catch(() => undefined);
  return { result, health };
}

/**
 * The routers' statistics over all micro-batches, from a pass without gradients before the one with: it draws the same
 * random numbers, so every token goes to the same experts. Empty for dense models.
 */
async function gatherStatistics(
  model: CausalLM<CausalLMConfig>,
  batches: readonly Batch[],
): Promise<BlockStatistics[]> {
  const { forwardCount } = model;
  let sums: BlockStatistics[] = [];
  for (const batch of batches) {
    const before = sums;
    sums = scope(() =>
      noGrad(() => {
        const { inputIds, documentStarts } = batchInputs(batch, model.device);
        const inputs = { inputIds, documentStarts: documentStarts as Tensor };
        const { routers } = model.forward({ ...inputs, lastLogitsOnly: true });
        const sum = (block: number, kind: keyof BlockStatistics, own: Tensor): Tensor => {
          const other = before[block]?.[kind];
          return other ? add(other, own) : own;
        };
        return (routers ?? []).map(({ attention, mlp }, block) => ({
          attention: sum(block, 'attention', attention.statistics),
          mlp: sum(block, 'mlp', mlp.statistics),
        }));
      }),
    );
    const tensors = before.flatMap(({ attention, mlp }) => [attention, mlp]);
    await tensors[0]?.data(); // so that the queue stays short
    for (const each of tensors) each.dispose();
  }
  model.forwardCount = forwardCount;
  return sums;
}

/** How much a micro-batch counts: its predicted tokens in the cross-entropy, and itself in the routers' losses. */
interface Weights {
  tokens: number;
  batch: number;
}

function enqueuePart(
  { model, regularizer }: StepOptions,
  batch: Batch,
  weights: Weights | null,
  population: readonly BlockStatistics[],
): { loss: Tensor; measured: Promise<Measured> } {
  const { loss, tensors } = scope(() => {
    const output = model.forward({
      ...batchInputs(batch, model.device),
      outputLogits: false,
      ...(population.length > 0 ? { population } : {}),
    });
    const extra = regularizer?.();
    const loss = extra
      ? add(output.loss as Tensor, cast(reshape(extra, []), 'f32'))
      : (output.loss as Tensor);
    const weighted = weights ? weightedLoss(loss, output.crossEntropy as Tensor, weights) : loss;
    weighted.backward();
    return { loss: weighted.detach(), tensors: tensorsToRead({ ...output, loss }) };
  });
  const measured = readPart(tensors, weights ?? { tokens: 1, batch: 1 });
  measured.catch(() => undefined);
  return { loss, measured };
}

function weightedLoss(loss: Tensor, crossEntropy: Tensor, { tokens, batch }: Weights): Tensor {
  return add(affine(crossEntropy, tokens, 0), affine(sub(loss, crossEntropy), batch, 0));
}

interface TensorsToRead {
  loss: Tensor;
  crossEntropy: Tensor;
  auxLoss: Tensor | null;
  concentrationLoss: Tensor | null;
  /** [3, E] of each block's two routers. */
  statistics: { attention: Tensor; mlp: Tensor }[];
  /** [4] of each block's two routers. */
  routerLosses: { attention: Tensor; mlp: Tensor }[];
}

function tensorsToRead({
  loss,
  crossEntropy,
  auxLoss,
  concentrationLoss,
  routers,
}: CausalLMOutput): TensorsToRead {
  return {
    loss: (loss as Tensor).detach(),
    crossEntropy: (crossEntropy as Tensor).detach(),
    auxLoss: auxLoss?.detach() ?? null,
    concentrationLoss: concentrationLoss?.detach() ?? null,
    statistics: (routers ?? []).map(({ attention, mlp }) => ({
      attention: attention.statistics.detach(),
      mlp: mlp.statistics.detach(),
    })),
    routerLosses: (routers ?? []).map(({ attention, mlp }) => ({
      attention: attention.losses.detach(),
      mlp: mlp.losses.detach(),
    })),
  };
}

async function readPart(tensors: TensorsToRead, { tokens, batch }: Weights): Promise<Measured> {
  const { loss, crossEntropy, auxLoss, concentrationLoss, statistics, routerLosses } = tensors;
  const [whole, ce, aux, concentration, ...routers] = await Promise.all([
    readAndFree(loss),
    readAndFree(crossEntropy),
    auxLoss ? readAndFree(auxLoss) : [0],
    concentrationLoss ? readAndFree(concentrationLoss) : [0],
    ...[...statistics, ...routerLosses].flatMap(({ attention, mlp }) => [
      readAndFree(attention),
      readAndFree(mlp),
    ]),
  ]);
  const [load, losses] = [routers.slice(0, 2 * statistics.length), routers.slice(2 * statistics.length)];
  const scalar = (values: ArrayLike<number> | undefined): number => values?.[0] as number;
  return {
    loss: scalar(ce) * tokens + (scalar(whole) - scalar(ce)) * batch,
    crossEntropy: scalar(ce) * tokens,
    auxLoss: scalar(aux) * batch,
    concentrationLoss: scalar(concentration) * batch,
    load: statistics.map((_, block) => ({
      attention: chosenRows(load[2 * block] as ArrayLike<number>),
      mlp: chosenRows(load[2 * block + 1] as ArrayLike<number>),
    })),
    entropy: routerLosses.map((_, block) => ({
      attention: entropyOf(losses[2 * block] as ArrayLike<number>, batch),
      mlp: entropyOf(losses[2 * block + 1] as ArrayLike<number>, batch),
    })),
  };
}

async function readAndFree(x: Tensor): Promise<ArrayLike<number>> {
  try {
    return (await x.data()) as ArrayLike<number> & object;
  } finally {
    x.dispose();
  }
}

/** The middle one of the rows of router statistics [3, E]. */
function chosenRows(statistics: ArrayLike<number>): number[] {
  const experts = statistics.length / 3;
  return Array.from({ length: experts }, (_, e) => statistics[experts + e] as number);
}

/** A router's entropies from its losses [4], times a weight: mutual information is the conditional less the marginal one. */
function entropyOf(losses: ArrayLike<number>, weight: number): RouterEntropy {
  const [information, marginal] = [losses[0] as number, losses[3] as number];
  return { marginal: weight * marginal, conditional: weight * Math.max(0, information + marginal) };
}

function sumOf(a: Tensor, b: Tensor): Tensor {
  const result = scope(() => add(a, b));
  a.dispose();
  b.dispose();
  return result;
}

/** Clips and applies the gradients; returns their norm. */
function enqueueUpdate(
  loss: Tensor,
  lr: number,
  { model, optimizer, clipNorm }: StepOptions,
  previous: StepHealth | undefined,
): Tensor {
  return noGrad(() =>
    scope(() => {
      const gradients = [...model.parameters()].flatMap(({ grad }) => grad ?? []);
      const { norm } = gradNorm(gradients);
      if (clipNorm < Infinity) clipGradients(gradients, norm, clipNorm);
      const { finite } = gradNorm([norm, loss, ...(previous ? [previous.norm, previous.loss] : [])]);
      optimizer.lr = lr;
      optimizer.step(finite);
      return norm;
    }),
  );
}

async function collect(parts: readonly Promise<Measured>[], { norm }: StepHealth): Promise<StepResult> {
  const [gradNorm] = (await norm.data()) as Float32Array | Float64Array;
  const measured = await Promise.all(parts);
  return { ...measured.reduce(sumParts), gradNorm: gradNorm as number };
}

function sumParts(a: Measured, b: Measured): Measured {
  const sums = (x: number[], y: number[]): number[] => x.map((value, e) => value + (y[e] as number));
  return {
    loss: a.loss + b.loss,
    crossEntropy: a.crossEntropy + b.crossEntropy,
    auxLoss: a.auxLoss + b.auxLoss,
    concentrationLoss: a.concentrationLoss + b.concentrationLoss,
    load: a.load.map(({ attention, mlp }, block) => ({
      attention: sums(attention, b.load[block]?.attention ?? []),
      mlp: sums(mlp, b.load[block]?.mlp ?? []),
    })),
    entropy: a.entropy.map(({ attention, mlp }, block) => {
      const other = b.entropy[block] as BlockEntropy;
      return { attention: sumEntropies(attention, other.attention), mlp: sumEntropies(mlp, other.mlp) };
    }),
  };
}

function sumEntropies(a: RouterEntropy, b: RouterEntropy): RouterEntropy {
  return { marginal: a.marginal + b.marginal, conditional: a.conditional + b.conditional };
}

import {
  add,
  affine,
  cast,
  exp,
  gelu,
  l2Normalize,
  linear,
  log,
  mean,
  mul,
  softmax,
} from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import { DataError, ValueError } from '../errors.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { tensor, type Tensor } from '../tensor.js';
import { textMask } from '../training/batch.js';
import { newRows } from './extend.js';
import { expertParameterNames, gatingParameterNames, parametersOf, routerPrefix } from './rebuild.js';
import { routerFeatures } from './router-features.js';
import { EXPERT_KINDS, type ExpertKind } from './usage.js';

/** Keeps the logarithm finite where new experts take everything. */
const TINY = 1e-8;

/**
 * What the routers of a model saw in some tokens of old text: enough to keep the routing of old text while new experts are
 * trained on new text, without the old text. As the old parts are frozen, old tokens keep their features.
 */
export class RouterMemory {
  readonly #base: ModuleFormerForCausalLM;
  /** By block: [n, D] ([n, G] with the gate `gmm`), f32 or f64. */
  readonly #features: readonly Record<ExpertKind, Tensor>[];

  private constructor(base: ModuleFormerForCausalLM, features: readonly Record<ExpertKind, Tensor>[]) {
    this.#base = base;
    this.#features = features;
  }

  /**
   * Runs the base over text that it knows, without gradients and in evaluation mode.
   * @param tokens how many are remembered, evenly spread over all text of `batches`. Default 2048.
   * @throws DataError without text, ValueError when `tokens` is no positive integer.
   */
  static async of(
    base: ModuleFormerForCausalLM,
    batches: Iterable<Batch>,
    { tokens = 2048 }: { tokens?: number } = {},
  ): Promise<RouterMemory> {
    if (!Number.isSafeInteger(tokens) || tokens < 1)
      throw new ValueError(`RouterMemory: tokens is ${tokens}, expected a positive integer`);
    const all = [...batches];
    const places = spreadOver(all.map(textMask), tokens);
    if (places.every((chosen) => chosen.length === 0)) throw new DataError('RouterMemory: there is no text');
    const rows: Record<ExpertKind, number[]>[] = base.config.mlpExperts.map(() => ({
      attention: [],
      mlp: [],
    }));
    const wasTraining = base.training;
    base.eval();
    try {
      for (const [i, batch] of all.entries()) {
        const chosen = places[i] as number[];
        if (chosen.length === 0) continue;
        for (const [block, own] of (await routerFeatures(base, batch, chosen)).entries())
          for (const kind of EXPERT_KINDS) for (const row of own[kind]) rows[block]?.[kind].push(...row);
      }
    } finally {
      base.train(wasTraining);
    }
    const count = places.reduce((sum, chosen) => sum + chosen.length, 0);
    const options = { dtype: base.dtype === 'f64' ? 'f64' : 'f32', device: base.device } as const;
    const hold = (values: number[]): Tensor =>
      tensor(values, { ...options, shape: [count, values.length / count] });
    return new RouterMemory(
      base,
      rows.map(({ attention, mlp }) => ({ attention: hold(attention), mlp: hold(mlp) })),
    );
  }

  /**
   * For `TrainerOptions.regularizer`: how much the routing of the remembered text differs from the base's, a scalar that
   * is 0 when new experts get none of it. It is the mean over tokens of the Kullback-Leibler divergence of the extended
   * router's distribution from the base's, which is -log of the mass that the old experts keep, summed over routers.
   * @param weight what it is multiplied with. Default 1.
   * @throws ValueError when the model does not extend the base.
   */
  penalty(extended: ModuleFormerForCausalLM, weight = 1): Tensor {
    const parameters = parametersOf(extended);
    let total: Tensor | null = null;
    for (const [block, features] of this.#features.entries()) {
      for (const kind of EXPERT_KINDS) {
        const [first, end] = newRows(this.#base.config, extended.config, kind, block);
        if (end < first)
          throw new ValueError(`RouterMemory: block ${block} has fewer ${kind} experts than its base`);
        if (end === first) continue;
        const probabilities = softmax(logitsOf(extended, parameters, features[kind], kind, block));
        const lost = affine(log(affine(keptMass(probabilities, first), 1, TINY)), -weight, 0);
        const divergence = mean(lost);
        total = total ? add(total, divergence) : divergence;
      }
    }
    if (!total) throw new ValueError('RouterMemory: the model has no experts that its base lacks');
    return total;
  }

  /** Frees the memory. */
  dispose(): void {
    for (const { attention, mlp } of this.#features) for (const each of [attention, mlp]) each.dispose();
  }
}

/** [n, E] of probabilities -> [n, 1]: the mass of the first experts. */
function keptMass(probabilities: Tensor, first: number): Tensor {
  const experts = probabilities.shape[1] as number;
  const old = Array.from({ length: experts }, (_, e) => Number(e < first));
  const { dtype, device } = probabilities;
  return linear(probabilities, tensor([old], { dtype, device }));
}

/** What the extended router makes of features: [n, E]. */
function logitsOf(
  { config }: ModuleFormerForCausalLM,
  parameters: ReadonlyMap<string, Tensor>,
  features: Tensor,
  kind: ExpertKind,
  block: number,
): Tensor {
  const wide = (name: string): Tensor => {
    const parameter = parameters.get(name) as Tensor;
    return parameter.dtype === features.dtype ? parameter : cast(parameter, features.dtype);
  };
  const rows = wide(expertParameterNames(config, kind, block).router);
  switch (config.gate_type) {
    case 'linear':
      return linear(features, rows);
    case 'mlp': {
      const [weight, bias] = gatingParameterNames(kind, block).map(wide) as [Tensor, Tensor];
      return linear(gelu(linear(features, weight, bias)), rows);
    }
    case 'gmm': {
      const temperature = wide(`${routerPrefix(kind, block)}.gate.temperature`);
      return mul(linear(features, l2Normalize(rows)), exp(temperature));
    }
  }
}

/** Which positions of each batch are remembered. */
function spreadOver(masks: readonly Int32Array[], tokens: number): number[][] {
  const text = masks.map((mask) => [...mask.keys()].filter((i) => mask[i] === 1));
  const total = text.reduce((sum, { length }) => sum + length, 0);
  const wanted = Math.min(tokens, total);
  let seen = 0;
  return text.map((positions) =>
    positions.filter(() => {
      const before = Math.floor((seen * wanted) / total);
      seen++;
      return Math.floor((seen * wanted) / total) > before;
    }),
  );
}

import {
  cast,
  dropout,
  exp,
  gelu,
  l2Normalize,
  linear,
  mul,
  routerLoss,
  routeTo,
  type RoutingPlan,
  routerTopK,
  softmax,
} from '../autograd/index.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import type { RandomKey } from '../native/binding.js';
import type { Tensor } from '../tensor.js';
import type { ModuleFormerConfig } from './config.js';
import type { RouterOutput } from './forward-context.js';

/** What a router needs besides its input. */
export interface RouterCall {
  /** [N] i32, 0 leaves a token out of losses and statistics. */
  mask: Tensor | null;
  /** Experts to use instead of the router's own choice; gates still come from its probabilities. */
  imposed: RoutingPlan | null;
  /** [3, E], of a larger batch that the tokens are part of. */
  population: Tensor | null;
  /** Whether the tokens go into a cache: no gradient is wanted then. */
  decoding: boolean;
  /** Whether the features are part of the output. */
  outputFeatures: boolean;
  wantLosses: boolean;
  /** For sampled top-k. */
  sampleKey: RandomKey;
  dropoutKey: RandomKey;
}

interface Scores {
  /** What new experts may read: the input [N, D], with the gate `gmm` [N, G]. */
  features: Tensor;
  /** [N, E] */
  logits: Tensor;
}

/**
 * Scores E experts for every token and picks K. Logits and probabilities are f32 (f64 in f64 models): rounded to bf16
 * they would flip experts at near ties.
 */
export class Router extends Module {
  readonly #k: number;
  readonly #sample: number;
  readonly #takesNarrow: boolean;
  readonly #dropout: number;
  readonly #score: (x: Tensor, dropoutKey: RandomKey) => Scores;

  constructor(make: ParameterFactory, config: ModuleFormerConfig, experts: number, k: number) {
    super();
    this.#k = k;
    this.#sample = config.sample_topk;
    this.#takesNarrow = config.gate_type === 'mlp';
    this.#dropout = config.moe_pdrop;
    this.#score = this.#build(make, config, experts);
  }

  #build(
    make: ParameterFactory,
    { gate_type, n_embd: D, gating_size: G, initializer_range: std }: ModuleFormerConfig,
    E: number,
  ): (x: Tensor, dropoutKey: RandomKey) => Scores {
    switch (gate_type) {
      case 'linear': {
        const weight = this.parameter('w_gate.0.weight', make.normal([E, D], std));
        return (x) => ({ features: x, logits: linear(x, wide(weight, x)) });
      }
      case 'mlp': {
        const weight = this.parameter('w_gate.0.weight', make.normal([G, D], std));
        const bias = this.parameter('w_gate.0.bias', make.constant([G], 0));
        const output = this.parameter('w_gate.3.weight', make.normal([E, G], std));
        const narrowHidden = (x: Tensor): Tensor =>
          linear(x, weight, bias, { activation: 'gelu', outputDType: 'f32' });
        return (x, key) => {
          const hidden =
            x.dtype === 'bf16' ? narrowHidden(x) : gelu(linear(x, wide(weight, x), wide(bias, x)));
          const kept = this.training && this.#dropout > 0 ? dropout(hidden, this.#dropout, key) : hidden;
          return { features: x, logits: linear(kept, wide(output, kept)) };
        };
      }
      case 'gmm': {
        const centroids = this.parameter('expert_centroids', make.normal([E, G], 1));
        const temperature = this.parameter('temperature', make.constant([1], 0));
        const weight = this.parameter('w_gate.weight', make.normal([G, D], std));
        return (x) => {
          const z = l2Normalize(linear(x, wide(weight, x)));
          const cosine = linear(z, l2Normalize(wide(centroids, x)));
          return { features: z, logits: mul(cosine, exp(wide(temperature, x))) };
        };
      }
    }
  }

  /** x [N, D] -> plan with gates [N, K] and, where wanted, losses and statistics. */
  forward(x: Tensor, call: RouterCall): { plan: RoutingPlan; output: RouterOutput | null } {
    // In decoding a bf16 x meets the weights as they are: the same products, without copies of either.
    const inPlace = call.decoding && this.#takesNarrow;
    const { features, logits } = this.#score(
      x.dtype === 'bf16' && !inPlace ? cast(x, 'f32') : x,
      call.dropoutKey,
    );
    const { plan, gates, probs } = call.imposed
      ? imposedRouting(logits, call.imposed)
      : routerTopK(logits, {
          k: this.#k,
          sample: this.training ? this.#sample : 0,
          key: call.sampleKey,
        });
    if (!call.wantLosses) return { plan, output: null };
    const { losses, stats } = routerLoss(logits, probs, gates, plan, call.mask, call.population);
    const output: RouterOutput = {
      plan,
      probabilities: probs,
      losses,
      statistics: stats,
      outputNorms: null,
      features: call.outputFeatures ? features : null,
    };
    return { plan, output };
  }
}

function imposedRouting(logits: Tensor, imposed: RoutingPlan): ReturnType<typeof routerTopK> {
  const probs = softmax(logits);
  return { ...routeTo(probs, imposed.experts), probs };
}

/** A bf16 parameter widened to the dtype of x. */
function wide(parameter: Tensor, x: Tensor): Tensor {
  return parameter.dtype === x.dtype ? parameter : cast(parameter, 'f32');
}

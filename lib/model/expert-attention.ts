import {
  attention,
  attentionWeights,
  combine,
  reshape,
  rowNorms,
  type RoutingPlan,
} from '../autograd/index.js';
import { Linear } from '../nn/layers.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import { multiplyRows } from '../nn/quantized.js';
import type { Tensor } from '../tensor.js';
import type { ModuleFormerConfig } from './config.js';
import { places, type ForwardContext, type RouterOutput } from './forward-context.js';
import { Router } from './router.js';

export interface AttentionOutput {
  /** [N, D] */
  y: Tensor;
  plan: RoutingPlan;
  /** Null where its losses are not wanted. */
  router: RouterOutput | null;
  /** [B, K, H, T, Tk], when asked for. */
  weights: Tensor | null;
}

/** The query and output projections [E, D, A] and [E, A, D] of the attention experts, with their router. */
class QueryExperts extends Module {
  readonly input: Tensor;
  readonly output: Tensor;
  readonly router: Router;

  constructor(make: ParameterFactory, config: ModuleFormerConfig, layer: number) {
    super();
    const { n_embd: D, att_hidden: A } = config;
    const E = config.attentionExperts[layer] as number;
    this.input = this.parameter('experts.weight', make.uniform([E, D, A], 1 / D));
    this.output = this.parameter('output_experts.weight', make.uniform([E, A, D], 1 / A));
    this.router = this.child('gate', new Router(make, config, E, config.k_att));
  }
}

/**
 * Stick-breaking attention with experts: the K chosen experts of a token are K groups of queries on keys and values
 * that all experts share (arXiv 2306.04640, section 3.2).
 */
export class ExpertAttention extends Module {
  readonly #experts: QueryExperts;
  readonly #keys: Linear | null;
  readonly #values: Linear | null;
  readonly #config: ModuleFormerConfig;
  readonly #layer: number;

  constructor(make: ParameterFactory, config: ModuleFormerConfig, layer: number) {
    super();
    this.#config = config;
    this.#layer = layer;
    this.#experts = this.child('q_proj', new QueryExperts(make, config, layer));
    const options = { std: config.initializer_range, bias: true };
    const project = (name: string): Linear | null =>
      config.hasIdentityKeys
        ? null
        : this.child(name, new Linear(make, config.n_embd, config.att_hidden, options));
    this.#keys = project('k_proj');
    this.#values = project('v_proj');
  }

  /** x [N, D], already normalised. */
  forward(x: Tensor, context: ForwardContext): AttentionOutput {
    const { n_head: H, headSize: C, k_att: K, attend_current, attend_remainder } = this.#config;
    const { batchSize: B, length: T } = context;
    const { plan, output } = this.#experts.router.forward(x, {
      mask: context.routerMask,
      imposed: context.routing?.[this.#layer]?.attention ?? null,
      population: context.population?.[this.#layer]?.attention ?? null,
      decoding: context.cache !== null,
      outputFeatures: context.outputRouterFeatures,
      wantLosses: context.wantLosses,
      sampleKey: context.randomKey(this.#layer, places.attentionRouter),
      dropoutKey: context.randomKey(this.#layer, places.attentionRouterDropout),
    });
    const q = reshape(
      multiplyRows(x, this.#experts.input, plan, { inputRows: 'token', outputRows: 'slot' }),
      [B, T, K, H, C],
    );
    const k = reshape(this.#keys ? this.#keys.forward(x) : x, [B, T, H, C]);
    const v = this.#values ? reshape(this.#values.forward(x), [B, T, H, C]) : k;
    const all = context.cache ? context.cache.append(this.#layer, k, v) : { k, v };
    const options = {
      kind: 'stickBreaking',
      ...(context.cache?.extent(T) ?? { keyLength: T }),
      keyMask: context.keyMask,
      documentStart: context.documentStart,
      attendCurrent: attend_current,
      remainder: attend_remainder,
    } as const;
    const heads = attention(q, all.k, all.v, options);
    const rows = multiplyRows(reshape(heads, [B * T * K, H * C]), this.#experts.output, plan, {
      inputRows: 'slot',
      outputRows: 'slot',
    });
    return {
      y: combine(rows, plan.gates, plan.topK),
      plan,
      router: output && {
        ...output,
        outputNorms: context.outputExpertNorms ? reshape(rowNorms(rows), plan.gates.shape) : null,
      },
      weights: context.outputAttentions ? attentionWeights(q, all.k, options) : null,
    };
  }
}

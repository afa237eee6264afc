import { combine, reshape, rowNorms, type RoutingPlan } from '../autograd/index.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import { multiplyMlp } from '../nn/quantized.js';
import type { Tensor } from '../tensor.js';
import type { ModuleFormerConfig } from './config.js';
import { activationKind } from './activation.js';
import { places, type ForwardContext, type RouterOutput } from './forward-context.js';
import { Router } from './router.js';

export interface MlpOutput {
  /** [N, D] */
  y: Tensor;
  plan: RoutingPlan;
  /** Null where its losses are not wanted. */
  router: RouterOutput | null;
}

/** Experts [D, F] and [F, D] without bias; a token's output is the gated sum of its K experts'. */
export class ExpertMlp extends Module {
  readonly #input: Tensor;
  readonly #output: Tensor;
  readonly #router: Router;
  readonly #config: ModuleFormerConfig;
  readonly #layer: number;

  constructor(make: ParameterFactory, config: ModuleFormerConfig, layer: number) {
    super();
    const { n_embd: D, ffd_hidden: F } = config;
    const E = config.mlpExperts[layer] as number;
    this.#config = config;
    this.#layer = layer;
    this.#input = this.parameter('experts.weight', make.uniform([E, D, F], 1 / D));
    this.#output = this.parameter('output_experts.weight', make.uniform([E, F, D], 1 / F));
    this.#router = this.child('gate', new Router(make, config, E, config.k_mlp));
  }

  /** x [N, D], already normalised -> y [N, D]. */
  forward(x: Tensor, context: ForwardContext): MlpOutput {
    const { plan, output } = this.#router.forward(x, {
      mask: context.routerMask,
      imposed: context.routing?.[this.#layer]?.mlp ?? null,
      population: context.population?.[this.#layer]?.mlp ?? null,
      decoding: context.cache !== null,
      outputFeatures: context.outputRouterFeatures,
      wantLosses: context.wantLosses,
      sampleKey: context.randomKey(this.#layer, places.mlpRouter),
      dropoutKey: context.randomKey(this.#layer, places.mlpRouterDropout),
    });
    const activation = activationKind(this.#config.activation_function);
    const rows = multiplyMlp(x, this.#input, this.#output, plan, activation);
    const { gates, topK } = plan;
    const outputNorms = context.outputExpertNorms ? reshape(rowNorms(rows), gates.shape) : null;
    return { y: combine(rows, gates, topK), plan, router: output && { ...output, outputNorms } };
  }
}

import { add, dropout } from '../autograd/index.js';
import { LayerNorm } from '../nn/layers.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import type { Tensor } from '../tensor.js';
import type { ModuleFormerConfig } from './config.js';
import { ExpertAttention } from './expert-attention.js';
import { ExpertMlp } from './expert-mlp.js';
import { places, type BlockRouting, type ForwardContext, type RouterOutput } from './forward-context.js';

/** The reference's norms ignore `layer_norm_epsilon`. */
export const LAYER_NORM_EPS = 1e-5;

export interface BlockOutput {
  /** [N, D] */
  x: Tensor;
  /** The experts chosen; null in dense models. */
  routing: BlockRouting | null;
  /** Null in dense models and where their losses are not wanted. */
  routers: { attention: RouterOutput; mlp: RouterOutput } | null;
  /** [B, K, H, T, Tk] */
  attentionWeights: Tensor | null;
}

/** x += attention(LN1(x)); x += mlp(LN2(x)), each a mixture of experts with a router of its own. */
export class ModuleFormerBlock extends Module {
  readonly #norm1: LayerNorm;
  readonly #attention: ExpertAttention;
  readonly #norm2: LayerNorm;
  readonly #mlp: ExpertMlp;
  readonly #dropout: number;
  readonly #layer: number;

  constructor(make: ParameterFactory, config: ModuleFormerConfig, layer: number) {
    super();
    this.#layer = layer;
    this.#dropout = config.resid_pdrop;
    this.#norm1 = this.child('ln_1', new LayerNorm(make, config.n_embd, LAYER_NORM_EPS));
    this.#attention = this.child('attn', new ExpertAttention(make, config, layer));
    this.#norm2 = this.child('ln_2', new LayerNorm(make, config.n_embd, LAYER_NORM_EPS));
    this.#mlp = this.child('mlpf', new ExpertMlp(make, config, layer));
  }

  /** x [N, D] */
  forward(x: Tensor, context: ForwardContext): BlockOutput {
    const attention = this.#attention.forward(this.#norm1.forward(x), context);
    const middle = add(x, this.#drop(attention.y, context, places.attentionOutput));
    const mlp = this.#mlp.forward(this.#norm2.forward(middle), context);
    return {
      x: add(middle, this.#drop(mlp.y, context, places.mlpOutput)),
      routing: { attention: attention.plan, mlp: mlp.plan },
      routers: attention.router && mlp.router && { attention: attention.router, mlp: mlp.router },
      attentionWeights: attention.weights,
    };
  }

  #drop(y: Tensor, context: ForwardContext, place: number): Tensor {
    if (!this.training || this.#dropout === 0) return y;
    return dropout(y, this.#dropout, context.randomKey(this.#layer, place));
  }
}

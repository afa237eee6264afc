import { add, attention, attentionWeights, dropout, reshape, rotary } from '../autograd/index.js';
import { LayerNorm, Linear } from '../nn/layers.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import { tensor, Tensor } from '../tensor.js';
import { activationKind } from './activation.js';
import type { BlockOutput } from './block.js';
import { CausalLM, type ForwardInputs } from './causal-lm.js';
import { DenseConfig } from './dense-config.js';
import { places, type ForwardContext } from './forward-context.js';
import { loadingDType, type BuildOptions, type LoadOptions, type ModelOptions } from './pretrained-model.js';
import { quantize } from './quantize.js';
import { Transformer } from './transformer.js';

/** Multi-head attention: softmax with rotary embedding, or stick-breaking. */
class DenseAttention extends Module {
  readonly #query: Linear;
  readonly #key: Linear;
  readonly #value: Linear;
  readonly #output: Linear;
  readonly #config: DenseConfig;
  readonly #layer: number;

  constructor(make: ParameterFactory, config: DenseConfig, layer: number) {
    super();
    this.#config = config;
    this.#layer = layer;
    const project = (name: string): Linear =>
      this.child(
        name,
        new Linear(make, config.n_embd, config.n_embd, { std: config.initializer_range, bias: true }),
      );
    this.#query = project('q_proj');
    this.#key = project('k_proj');
    this.#value = project('v_proj');
    this.#output = project('out_proj');
  }

  /** x [N, D], already normalised. */
  forward(x: Tensor, context: ForwardContext): { y: Tensor; weights: Tensor | null } {
    const { n_head: H, headSize: C, n_embd: D, attention_type } = this.#config;
    const { batchSize: B, length: T } = context;
    const q = reshape(this.#rotate(this.#query.forward(x), context), [B, T, 1, H, C]);
    const k = reshape(this.#rotate(this.#key.forward(x), context), [B, T, H, C]);
    const v = reshape(this.#value.forward(x), [B, T, H, C]);
    const all = context.cache ? context.cache.append(this.#layer, k, v) : { k, v };
    const options = {
      kind: attention_type === 'softmax' ? 'softmax' : 'stickBreaking',
      ...(context.cache?.extent(T) ?? { keyLength: T }),
      keyMask: context.keyMask,
      documentStart: context.documentStart,
    } as const;
    const heads = attention(q, all.k, all.v, options);
    return {
      y: this.#output.forward(reshape(heads, [B * T, D])),
      weights: context.outputAttentions ? attentionWeights(q, all.k, options) : null,
    };
  }

  #rotate(x: Tensor, context: ForwardContext): Tensor {
    const { n_head: H, headSize: C, rotarySize, rotary_base } = this.#config;
    if (rotarySize === 0 || !context.positions) return x;
    const heads = reshape(x, [context.batchSize, context.length, H, C]);
    return rotary(heads, context.positions, { rotaryDim: rotarySize, base: rotary_base });
  }
}

/** [D, F], activation, [F, D], with biases. */
class DenseMlp extends Module {
  readonly #input: Linear;
  readonly #output: Linear;
  readonly #activation: ReturnType<typeof activationKind>;

  constructor(make: ParameterFactory, config: DenseConfig) {
    super();
    const { n_embd: D, ffd_hidden: F, initializer_range: std } = config;
    this.#input = this.child('fc_in', new Linear(make, D, F, { std, bias: true }));
    this.#output = this.child('fc_out', new Linear(make, F, D, { std, bias: true }));
    this.#activation = activationKind(config.activation_function);
  }

  /** x [N, D], already normalised. */
  forward(x: Tensor): Tensor {
    return this.#output.forward(this.#input.forward(x, this.#activation));
  }
}

/** A pre-norm block: both sublayers side by side on the same x (GPT-NeoX), or one after the other. */
class DenseBlock extends Module {
  readonly #norm1: LayerNorm;
  readonly #attention: DenseAttention;
  readonly #norm2: LayerNorm;
  readonly #mlp: DenseMlp;
  readonly #config: DenseConfig;
  readonly #layer: number;

  constructor(make: ParameterFactory, config: DenseConfig, layer: number) {
    super();
    this.#config = config;
    this.#layer = layer;
    this.#norm1 = this.child('ln_1', new LayerNorm(make, config.n_embd, config.layer_norm_epsilon));
    this.#attention = this.child('attn', new DenseAttention(make, config, layer));
    this.#norm2 = this.child('ln_2', new LayerNorm(make, config.n_embd, config.layer_norm_epsilon));
    this.#mlp = this.child('mlp', new DenseMlp(make, config));
  }

  forward(x: Tensor, context: ForwardContext): BlockOutput {
    const { y, weights } = this.#attention.forward(this.#norm1.forward(x), context);
    const middle = add(x, this.#drop(y, context, places.attentionOutput));
    const source = this.#config.use_parallel_residual ? x : middle;
    const mlp = this.#drop(this.#mlp.forward(this.#norm2.forward(source)), context, places.mlpOutput);
    return { x: add(middle, mlp), routing: null, routers: null, attentionWeights: weights };
  }

  #drop(y: Tensor, context: ForwardContext, place: number): Tensor {
    const p = this.#config.resid_pdrop;
    return this.training && p > 0 ? dropout(y, p, context.randomKey(this.#layer, place)) : y;
  }
}

/** The dense baseline: a transformer of GPT-NeoX's and Pythia's shape on the same kernels, with the same API. */
export class DenseForCausalLM extends CausalLM<DenseConfig> {
  protected readonly architecture = 'DenseForCausalLM';
  protected readonly transformer: Transformer;
  protected readonly head: Linear;

  /** A new model with random parameters, in evaluation mode. */
  constructor(config: DenseConfig, options: ModelOptions & BuildOptions = {}) {
    super(config, options, { weight: 0, type: 'mi' });
    this.transformer = this.child(
      'transformer',
      new Transformer(
        this.make,
        config,
        config.layer_norm_epsilon,
        (layer) => new DenseBlock(this.make, config, layer),
      ),
    );
    const { n_embd: D, vocab_size: V, initializer_range: std } = config;
    this.head = this.child('lm_head', new Linear(this.make, D, V, { std, bias: false }));
  }

  /**
   * Loads `config.json` and the weights in `dir`; evaluation mode.
   * @throws ConfigError, CheckpointError
   */
  static async fromPretrained(dir: string, options: LoadOptions = {}): Promise<DenseForCausalLM> {
    const config = await DenseConfig.fromFile(dir);
    const dtype = await loadingDType(dir, options.dtype);
    const model = new DenseForCausalLM(config, { ...options, dtype, uninitialised: true });
    await model.loadWeights(dir);
    if (options.quantize) quantize(model);
    return model;
  }

  /** Counted from each row's first token that is not padding, as Hugging Face does. */
  protected override readonly positions = (
    { attentionMask }: ForwardInputs,
    { batchSize, before, length }: { batchSize: number; before: number; length: number },
  ): Tensor | null => {
    if (this.config.rotarySize === 0) return null;
    const positions = new Int32Array(batchSize * length);
    for (let b = 0; b < batchSize; b++) {
      const mask = attentionMask instanceof Tensor ? undefined : attentionMask?.[b];
      let position = 0;
      for (let t = 0; t < before + length; t++) {
        if (t >= before) positions[b * length + t - before] = position;
        if (mask?.[t] !== 0) position++;
      }
    }
    return tensor(positions, { shape: [batchSize, length], device: this.device });
  };
}
